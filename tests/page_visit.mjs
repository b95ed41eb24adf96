// Visits the page as a person does, and prints what is seen as JSON.
// node page_visit.mjs FOLDER URL STEPS: FOLDER holds the page, STEPS is a name below.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { documentOf, until } from "./page_document.mjs";

const [, , folder, url, steps] = process.argv;
for (const name of readdirSync(folder).filter((each) => each.endsWith(".js"))) {
  const script = readFileSync(`${folder}/${name}`, "utf8");
  const module = script.replaceAll(/"\/page\/(\w+)\.js"/g, '"./$1.mjs"');
  writeFileSync(`${folder}/${name.replace(".js", ".mjs")}`, module);
}

const document = documentOf(readFileSync(`${folder}/index.html`, "utf8"));
const at = (id) => document.getElementById(id);
const asked = [];
const ask = globalThis.fetch;
globalThis.fetch = (path, options = {}) => {
  if (!path.startsWith("/")) throw new Error(`asks elsewhere: ${path}`);
  asked.push({ path, key: options.headers?.Authorization ?? null, body: options.body ?? null });
  return ask(url + path, options);
};
const [location, hashes] = [{ hash: "" }, []];
const addEventListener = (event, act) => { if (event === "hashchange") hashes.push(act); };
Object.assign(globalThis, { document, innerWidth: 1000, innerHeight: 1000, location });
globalThis.addEventListener = addEventListener;
const goTo = (hash) => { location.hash = hash; hashes.forEach((act) => act()); };
await import(pathToFileURL(`${folder}/page.mjs`));

const turns = () => at("log").children;
const isIdle = () => !at("send").disabled && at("stop").disabled;
const question = (text) => {
  at("question").value = text;
  at("question").send("keydown", { key: "Enter", shiftKey: false, isComposing: false });
};
const button = (turn, text) => turn.all("button").find((each) => each.textContent === text);
const answered = async (count) => {
  await until(() => turns().length === count && isIdle(), `${count} turns`);
  return turns().at(-1);
};
const divs = (turn) => turn.all("div").filter((each) => each.attributes.class === "text");

const VISITS = {
  async chat() {
    at("temperature").value = "0";
    at("thinking").checked = true;
    await until(() => at("metrics").children.length, "metrics");
    question("What is 17 + 25?");
    const turn = await answered(2);
    const [reasoning, content] = divs(turn).map((each) => each.textContent);
    const span = turn.all("span")[0];
    at("log").send("mouseover", { target: span, clientX: 10, clientY: 20 });
    const tip = { text: at("tip").textContent, hidden: at("tip").hidden, left: at("tip").style.left };
    const table = turn.all("details").at(-1);
    table.send("toggle");
    question("And 1 + 1?");
    await answered(4);
    return {
      reasoning, content, tip, rows: table.all("tr").length - 1, model: at("model").textContent,
      said: at("said").textContent, metrics: at("metrics").textContent,
      bodies: asked.filter((each) => each.body).map((each) => JSON.parse(each.body)),
    };
  },

  async edit() {
    question("first");
    await answered(2);
    question("second");
    await answered(4);
    button(turns()[2], "Edit").send("click");
    const edited = { text: at("question").value, turns: turns().length };
    question("third");
    await answered(4);
    const body = JSON.parse(asked.filter((each) => each.body).at(-1).body);
    at("clear").send("click");
    return { edited, users: body.messages.filter((m) => m.role === "user"), left: turns().length };
  },

  async stop() {
    question("long");
    await until(() => turns()[1]?.all("span").length, "text");
    at("stop").send("click");
    const turn = await answered(2);
    return { said: at("said").textContent, shown: turn.all("p").at(0).textContent };
  },

  async key() {
    await until(() => at("key-dialog").isOpen, "a question for the key");
    const why = at("key-why").textContent;
    at("key").value = "wrong";
    at("key-form").send("submit");
    await until(() => at("key-dialog").isOpen && at("key-why").textContent !== why, "another");
    const second = at("key-why").textContent;
    at("key").value = "right";
    at("key-form").send("submit");
    await until(() => at("model").textContent.includes("up to"), "the model's name");
    question("hello");
    await answered(2);
    return { why, second, kept: at("key").value, keys: [...new Set(asked.map((each) => each.key))] };
  },

  async leave() {
    await until(() => at("key-dialog").isOpen, "a question for the key");
    at("key-cancel").send("click");
    await new Promise((resolve) => setTimeout(resolve, 4500));
    const again = at("key-dialog").isOpen;
    question("hello");
    await until(() => at("key-dialog").isOpen, "the question again");
    at("key-dialog").send("cancel");
    const turn = await answered(2);
    return { again, shown: turn.all("p").at(0).textContent };
  },

  async choices() {
    goTo("#choices");
    await until(() => at("choices-table").all("tr").length, "a table");
    const rows = () => at("choices-table").all("tr");
    const look = () => ({
      said: at("choices-said").textContent,
      picture: at("layers").attributes["aria-label"],
      layers: at("layers").all("rect").length,
      blocks: rows().filter((each) => each.attributes.class === "block").map((each) => each.textContent),
      ops: at("choices-table").all("button").map((each) => each.textContent),
    });
    const first = look();
    const buttons = at("choices-table").all("button");
    const why = (at) => rows().filter((each) => each.attributes.class === "why")[at];
    const before = { text: why(2).textContent, hidden: why(2).hidden };
    buttons[2].send("click");
    const open = { text: why(2).textContent, hidden: why(2).hidden };
    const expanded = buttons[2].attributes["aria-expanded"];
    buttons[2].send("click");
    const closed = { text: why(2).textContent, hidden: why(2).hidden };
    const options = at("program").all("option");
    at("program").value = options.at(-1).attributes.value;
    at("program").send("change");
    await until(() => at("choices-said").textContent !== first.said, "another program");
    const last = look();
    const views = { talk: at("talk").hidden, choices: at("choices").hidden };
    goTo("#chat");
    return {
      first, last, before, open, closed, expanded, views, programs: options.map((each) => each.textContent),
      current: at("to-chat").attributes["aria-current"], talk: at("talk").hidden, choices: at("choices").hidden,
      asked: asked.map((each) => each.path).filter((each) => each.startsWith("/explain")),
    };
  },

  async none() {
    goTo("#choices");
    await until(() => at("choices-said").textContent.includes("serves no artifact"), "a reason");
    return at("choices-said").textContent;
  },

  async walk() {
    question("What is 17 + 25?");
    const turn = await answered(2);
    const spans = turn.all("span");
    const press = (key) => {
      at("log").send("keydown", { key });
      const marked = spans.findIndex((each) => each.classList.contains("current"));
      return { marked, said: at("said").textContent, tip: at("tip").textContent };
    };
    const seen = ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"].map(press);
    at("log").send("blur");
    return { seen, hidden: at("tip").hidden, left: spans.some((each) => each.classList.contains("current")) };
  },

  async gone() {
    await until(() => at("model").textContent.includes("up to"), "the model's name");
    globalThis.fetch = async () => { throw new TypeError("Failed to fetch"); };
    question("hello");
    const turn = await answered(2);
    await until(() => at("state").textContent.includes("not answer"), "the state");
    return { shown: turn.all("p").at(0).textContent, state: at("state").textContent };
  },

  async breaks() {
    question("break");
    const turn = await answered(2);
    return { shown: turn.all("p").at(0).textContent, text: divs(turn)[0].textContent };
  },

  async plain() {
    question("plain");
    const turn = await answered(2);
    return turn.all("p").at(0).textContent;
  },

  async tools() {
    at("tools").value = "[{";
    question("weather?");
    const wrong = (await answered(2)).all("p").at(0).textContent;
    at("tools").value = '[{"type": "function", "function": {"name": "f"}}]';
    question("weather?");
    const turn = await answered(4);
    const call = turn.all("pre")[0].textContent;
    const [input] = turn.all("textarea");
    input.value = "<b>sunny</b>";
    button(turn, "Send the results").send("click");
    const last = await answered(6);
    const body = JSON.parse(asked.filter((each) => each.body).at(-1).body);
    return { wrong, call, label: turn.all("label")[0].textContent, body, shown: divs(last)[0].textContent };
  },
};

const seen = await VISITS[steps]();
console.log(JSON.stringify(seen));
process.exit(0);
