// Shows the probabilities of tokens: beside one, under the pointer or by keys, and as a table.

import { tokenLines } from "/page/reading.js";

const ROWS = 500; // of a table, before somebody asks for more

export class TokenView {
  #of = new WeakMap();
  #current = null; // the element whose tip is shown
  #walked = null; // the one that the arrow keys came to

  /** `page` makes elements, and says what a screen reader is to hear. */
  constructor(page) {
    this.page = page;
    this.at = page.at;
    const on = (event, act) => this.at("log").addEventListener(event, act);
    on("mouseover", ({ target, clientX, clientY }) => this.tip(target, clientX, clientY + 18));
    on("mouseout", () => this.tip(null));
    on("blur", () => this.tip(null));
    on("keydown", (event) => this.walk(event));
  }

  /** An element's text is that of these tokens. */
  set(element, tokens) { this.#of.set(element, tokens); }

  /** A table of an answer's tokens, some hundred of them at a time. */
  fill(details, tokens) {
    const row = (kind, cells, attributes = {}) =>
      this.page.element("tr", {}, ...cells.map((text) => this.page.element(kind, attributes, text)));
    const head = this.page.element("thead", {}, row("th", ["Token", "Others"], { scope: "col" }));
    const body = this.page.element("tbody");
    const more = this.page.button("Show more", () => add());
    let shown = 0;
    const add = () => {
      body.append(...tokens.slice(shown, shown + ROWS).map((token) => {
        const [first, ...others] = tokenLines(token);
        return row("td", [first, others.map((line) => line.trim()).join(", ")]);
      }));
      shown += ROWS;
      if (shown >= tokens.length) more.remove();
    };
    details.append(this.page.element("table", {}, head, body), more);
    add();
  }

  /** Beside an element, what stood beside its token; nothing where it is none. */
  tip(element, x = 0, y = 0) {
    const tokens = element && this.#of.get(element);
    const tip = this.at("tip");
    this.#current?.classList.remove("current");
    this.#current = tokens ? element : null;
    tip.hidden = !tokens;
    if (!tokens) return;
    element.classList.add("current");
    tip.textContent = tokens.flatMap(tokenLines).join("\n");
    tip.style.left = `${Math.max(0, Math.min(x, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + tip.offsetHeight + 8 > innerHeight ? y - tip.offsetHeight - 40 : y}px`;
  }

  /** From token to token by arrow keys; a screen reader hears each. */
  walk(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!steps || event.target !== this.at("log")) return;
    const tokens = [...this.at("log").querySelectorAll(".token")];
    if (!tokens.length) return;
    event.preventDefault();
    const before = this.#current ?? this.#walked;
    const at = before?.isConnected ? tokens.indexOf(before) + steps : this.firstOfLast(tokens);
    const token = tokens[Math.max(0, Math.min(at, tokens.length - 1))];
    this.#walked = token;
    token.scrollIntoView({ block: "nearest" });
    const { left, bottom } = token.getBoundingClientRect();
    this.tip(token, left, bottom + 6);
    this.page.say(this.#of.get(token).flatMap(tokenLines).join("; "));
  }

  /** The place of the first token of the last answer. */
  firstOfLast(tokens) {
    const last = tokens.at(-1).closest("article");
    return tokens.findIndex((each) => each.closest("article") === last);
  }
}
