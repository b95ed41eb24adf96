// Shows what was compiled: layers by their time, and every choice with what lost against it.

import {
  LEGEND, blocksOf, choiceText, familyOf, layersDrawn, layersText, percentText, priceText,
  programText, stepsText, timeOf, timeText,
} from "/page/explaining.js";

export class ChoicesView {
  #whole = null;
  #isAsking = false;
  #wanted = "";

  /** `page` makes elements and asks the server; its metrics are read when a program is shown. */
  constructor(page) {
    this.page = page;
    this.at = page.at;
    this.at("program").addEventListener("change", () => this.show(this.at("program").value));
  }

  say(text) { this.at("choices-said").textContent = text; }

  /** Ask what was compiled, unless that is known. */
  async open() {
    if (this.#whole || this.#isAsking) return;
    this.#isAsking = true;
    this.say("asking the server");
    try {
      const whole = await this.ask("/explain");
      this.list(whole.programs);
      this.#whole = whole;
      await this.show(whole.programs[0].name);
    } catch (error) {
      this.say(error.message);
    } finally {
      this.#isAsking = false;
    }
  }

  async ask(path) {
    const answer = await this.page.request(path);
    if (answer.ok) return await answer.json();
    if (answer.status === 404 && path === "/explain") {
      throw new Error("This server serves no artifact whose choices it could show.");
    }
    throw new Error(await this.page.reason(answer));
  }

  list(programs) {
    const groups = new Map();
    for (const program of programs) {
      const { segment, name, shown } = program;
      if (!groups.has(segment)) {
        groups.set(segment, this.page.element("optgroup", { label: segment }));
      }
      const option = this.page.element("option", { value: name }, programText(program));
      option.disabled = !shown;
      groups.get(segment).append(option);
    }
    this.at("program").replaceChildren(...groups.values());
  }

  /** Show a program; one that comes after another was asked for is dropped. */
  async show(name) {
    this.#wanted = name;
    try {
      const { choices } = await this.ask(`/explain/${encodeURIComponent(name)}`);
      if (this.#wanted !== name) return;
      const program = this.#whole.programs.find((each) => each.name === name);
      const blocks = blocksOf(choices);
      const of = `${this.#whole.target}: ${program.segment} program, ${priceText(program)}.`;
      const steps = stepsText(this.page.metrics, program.segment);
      this.say([of, steps, this.#whole.activations].filter(Boolean).join(" "));
      this.draw(blocks);
      this.at("choices-table").replaceChildren(this.table(blocks, program.us));
    } catch (error) {
      this.say(error.message);
    }
  }

  /** An element of the picture; its namespace is the page's own picture's. */
  shape(name, attributes, ...children) {
    const made = this.page.document.createElementNS(this.at("layers").namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  draw(blocks) {
    const { rectangles, labels } = layersDrawn(blocks);
    const shapes = rectangles.map(({ family, x, y, width, height }) => this.shape("rect", {
      class: `layer ${family}`, x: `${x}%`, width: `${width}%`,
      y: `${0.8 * y}%`, height: `${0.8 * height}%`,
    }));
    const texts = labels.map(({ text, x }) =>
      this.shape("text", { x: `${x}%`, y: "97%", "text-anchor": "middle" }, text));
    this.at("layers").replaceChildren(...shapes, ...texts);
    this.at("layers").setAttribute("aria-label", layersText(blocks));
    this.at("legend").replaceChildren(...Object.entries(LEGEND).map(([family, text]) =>
      this.page.element("li", { class: family }, text)));
  }

  table(blocks, whole) {
    const make = (...parts) => this.page.element(...parts);
    const heads = ["Ops", "Lowering", "Share of the run", "Predicted", "Measured"];
    const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
    const most = Math.max(...blocks.flatMap((block) => block.choices.map(timeOf)), 0) || 1;
    const bodies = blocks.map(({ name, layers, us, choices }) => {
      const times = layers > 1 ? ` × ${layers} layers` : "";
      const title = `${name}${times}: ${timeText(us)}, ${percentText(us, whole)}`;
      const cell = make("th", { colspan: heads.length, scope: "rowgroup" }, title);
      const rows = choices.flatMap((choice) => this.rows(choice, most, whole, heads.length));
      return make("tbody", {}, make("tr", { class: "block" }, cell), ...rows);
    });
    const caption = make("caption", {}, "Choices, as they run");
    return make("table", {}, caption, make("thead", {}, head), ...bodies);
  }

  /** A choice's row, and the row under it that its button opens. */
  rows(choice, most, whole, columns) {
    const make = (...parts) => this.page.element(...parts);
    const why = make("tr", { class: "why" });
    why.hidden = true;
    const button = this.page.button(choice.ops.join(" + "), () => {
      if (!why.childNodes.length) why.append(make("td", { colspan: columns }, ...this.why(choice)));
      why.hidden = !why.hidden;
      button.setAttribute("aria-expanded", String(!why.hidden));
    });
    button.setAttribute("aria-expanded", "false");
    const time = timeOf(choice);
    const isMeasured = choice.source === "record";
    const width = `${Math.max((100 * time) / most, 0.5)}%`;
    const kind = `bar ${familyOf(choice.ops)} ${isMeasured ? "measured" : "estimated"}`;
    const bar = this.shape("svg", { class: "bars", "aria-hidden": "true" },
      this.shape("rect", { class: kind, width, height: "100%" }));
    const predicted = isMeasured ? choice.estimate_us : choice.us;
    const cells = [
      make("th", { scope: "row" }, button),
      make("td", {}, choice.lowering),
      make("td", { class: "share" }, bar, make("span", {}, percentText(time, whole))),
      make("td", { class: "number" }, timeText(predicted)),
      make("td", { class: "number" }, isMeasured ? timeText(choice.us) : "none"),
    ];
    return [make("tr", {}, ...cells), why];
  }

  why(choice) {
    const make = (...parts) => this.page.element(...parts);
    const facts = choiceText(choice).flatMap(([name, text]) =>
      [make("dt", {}, name), make("dd", {}, text)]);
    const losers = choice.losers.map(({ lowering, us, reason }) => make("li", {},
      make("strong", {}, lowering), us === null ? ": " : `, ${timeText(us)}: `, reason));
    const more = choice.num_losers - losers.length;
    if (more) losers.push(make("li", {}, `and ${more} more, which lostwax explain prints`));
    const lost = losers.length ? make("ul", {}, ...losers) : "Nothing: no other lowering matches.";
    return [make("dl", { class: "facts" }, ...facts), make("p", {}, "What lost, and why:"), lost];
  }
}
