// A document of as much as the page uses: no markup is ever read, so that text stays text. Knows no
// page. What would read markup throws.

class Node {
  constructor(name, text = null) {
    Object.assign(this, { name, text, childNodes: [], parent: null, attributes: {}, listeners: {} });
    Object.assign(this, { value: "", checked: false, disabled: false, hidden: false, style: {} });
    Object.assign(this, { scrollHeight: 0, scrollTop: 0, clientHeight: 0, isOpen: false });
    Object.assign(this, { offsetWidth: 0, offsetHeight: 0, namespaceURI: null });
    const classes = () => new Set((this.attributes.class ?? "").split(" "));
    const keep = (set) => { this.attributes.class = [...set].join(" "); };
    this.classList = {
      add: (name) => keep(classes().add(name)),
      remove: (name) => keep([...classes()].filter((each) => each !== name)),
      contains: (name) => classes().has(name),
    };
  }

  get children() { return this.childNodes.filter((each) => each.text === null); }
  get textContent() { return this.text ?? this.childNodes.map((each) => each.textContent).join(""); }
  set textContent(text) { this.replaceChildren(String(text)); }
  set innerHTML(_) { throw new Error("markup is read"); }
  set outerHTML(_) { throw new Error("markup is read"); }
  insertAdjacentHTML() { throw new Error("markup is read"); }

  append(...nodes) {
    for (const each of nodes) {
      const node = each instanceof Node ? each : new Node("#text", String(each));
      node.remove();
      node.parent = this;
      this.childNodes.push(node);
    }
  }

  replaceChildren(...nodes) {
    this.childNodes = [];
    this.append(...nodes);
  }

  remove() {
    if (this.parent) this.parent.childNodes = this.parent.childNodes.filter((n) => n !== this);
    this.parent = null;
  }

  setAttribute(name, value) {
    if (name === "style" || name.startsWith("on")) throw new Error(`the policy forbids ${name}`);
    this.attributes[name] = String(value);
  }

  addEventListener(event, act) { (this.listeners[event] ??= []).push(act); }

  send(event, more = {}) {
    const sent = { type: event, target: this, preventDefault() {}, ...more };
    for (const act of this.listeners[event] ?? []) act(sent);
    this[`on${event}`]?.(sent);
  }

  all(name) {
    return this.childNodes.flatMap((each) => [...(each.name === name ? [each] : []), ...each.all(name)]);
  }

  /** Of a class, as in `.token`: all that is asked for. */
  querySelectorAll(selector) {
    const every = (node) => node.children.flatMap((each) => [each, ...every(each)]);
    return every(this).filter((each) => each.classList.contains(selector.slice(1)));
  }

  closest(name) {
    return this.name === name ? this : (this.parent?.closest(name) ?? null);
  }

  get isConnected() { return this.closest("div") !== null; }
  getBoundingClientRect() { return { left: 0, bottom: 0 }; }
  scrollIntoView() {}
  removeAttribute(name) { delete this.attributes[name]; }
  focus() {}
  showModal() { this.isOpen = true; }
  close() { this.isOpen = false; }
}

/** A document with the elements of a page that have an id; asking for another is an error. */
export function documentOf(html) {
  const ids = new Map();
  for (const [tag, name] of html.matchAll(/<([a-z]+)[^>]*\sid="[^"]+"[^>]*>/g)) {
    const node = new Node(name);
    node.checked = / checked/.test(tag);
    node.disabled = / disabled/.test(tag);
    node.value = / value="([^"]*)"/.exec(tag)?.[1] ?? "";
    ids.set(/ id="([^"]+)"/.exec(tag)[1], node);
  }
  const document = new Node("document");
  document.createElement = (name) => new Node(name);
  document.createElementNS = (_, name) => new Node(name);
  document.getElementById = (id) => {
    if (!ids.has(id)) throw new Error(`no element has the id ${id}`);
    return ids.get(id);
  };
  return document;
}

/** Waits until something holds. */
export async function until(holds, what) {
  for (let n = 0; n < 1500; n++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never: ${what ?? holds}`);
}
