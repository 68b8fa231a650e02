// Building parts of the page. Texts become text nodes, never markup: a record may hold anything.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// Makes an element. `on...` properties are listeners, `class` and all others attributes.
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// A user's text: kept as it is, line breaks included, in the direction of its own letters.
export const quote = (text, name = "quote") => el("p", { class: name, dir: "auto" }, text);

export const signed = (value, digits = 2) =>
  (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

export const plural = (count, noun, many = noun + "s") =>
  `${count.toLocaleString("en")} ${count === 1 ? noun : many}`;

export function when(time) {
  const date = new Date(time === null ? NaN : time * 1000);
  if (Number.isNaN(date.getTime())) return "no date";
  return date.toISOString().slice(0, 10);
}
