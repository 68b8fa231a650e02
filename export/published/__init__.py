"""HYDRA as published (Zhuang et al., NeurIPS 2024, arXiv 2406.02888), as a baseline to beat.

Owns the paper's method on our data, LLM and encoder, so that one run compares both. It shares
nothing with the heads a device uses, and none of it is shipped.

The method. A cross-encoder reads a pair, (query, record) for the reranker and (query, candidate)
for the adapter; the [CLS] vector goes through a user's own head: dropout, W_u (h x h) and tanh,
dropout, a linear layer to two classes, with two-way cross-entropy. For each task and role the
encoder is trained together with the heads of the training users (AdamW, 2e-5, weight decay
0.01, batches of 64, 2 epochs, every parameter). A new user gets a fresh head, fitted by the
same recipe on their own past, with the encoder frozen. Labels: a record helps a pseudo-query
if the LLM, shown it alone at temperature 0, answers exactly (label, rating), or better than the
mean of that query's candidates by (ROUGE-1 + ROUGE-L) / 2 (text); a sampled answer fits if it
is exact, and for text the truth stands as one more row, the positive one. Answering: BM25's best
10, the 4 of them with the highest p(1) shown, 8 answers sampled, the one with the highest p(1).

What is corrected here, as a bug rather than a choice:

- labels come from records before the first query only: never from a query to be answered;
- a pseudo-query's candidates are earlier records, never the record itself or a later one;
- dropout is off whenever something is scored;
- heads are initialised by their real fan-in, h and not h * h;
- labels are compared for equality, not as substrings: an empty answer is no longer right;
- a text's threshold is the mean of its own query's candidates, not of a block of users;
- [CLS] and [SEP] are the tokenizer's own, and stand between query and candidate too;
- a record is read with its answer (first, so that cutting cannot lose it);
- a pair whose record did not fit the context is left out, where it would be labelled for
  an answer that never saw it;
- queries are not lost, and a query with fewer than 8 distinct answers shifts no other.

What differs for reasons of cost, or to be comparable:

- the encoder is that of our own base (MiniLM, 6 layers of 384, at most 128 tokens), not
  Longformer; prompts, closed sets and the sampling are the project's (first answer greedy);
- LLM calls are bounded by an allowance, where the paper's labelling takes 900 to 2,700 a user;
- the adapter's pools are sampled with BM25's best 4, so that its labels do not depend on the
  reranker's training (the authors' code leaves open what was shown);
- a new user's vectors are computed once, so the frozen encoder has no dropout while a head is
  fitted, and heads are fitted one user at a time, as on a device. The authors' pooled fit gave
  every head some 140 steps; ``train.NEW_USER`` grants as many, where two epochs over one user's
  rows would be about four and leave the head at its random start. The encoders are granted as many
  by default, where two epochs over our few labels would be about forty. All favour this baseline.

Known flaws kept, being the method: heads start at random and not from the population, text
adapters learn to tell people from LLMs rather than to choose among answers of an LLM, and
nothing is validated.
"""

from __future__ import annotations

AUTHORS_STEPS = 140  # of every head, in the authors' own, pooled fit
