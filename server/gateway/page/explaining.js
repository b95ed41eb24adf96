// What the server says of its compiled choices, as what is drawn. Knows no document, asks nobody.

const FAMILIES = [
  ["attention", ["mla", "dsa"]],
  ["experts", ["moe"]],
  ["products", ["quant"]],
];
export const LEGEND = {
  attention: "attention and its selection",
  experts: "experts and their routing",
  products: "other products with weights",
  other: "everything else",
};

/** What a region is mostly for, by its ops' dialects; a class of the style sheet. */
export function familyOf(ops) {
  const dialects = ops.map((op) => op.split(".")[0]);
  const found = FAMILIES.find(([, names]) => dialects.some((each) => names.includes(each)));
  return found ? found[0] : "other";
}

/** Microseconds in a unit that makes three digits of them. */
export function timeText(us) {
  if (us >= 1e6) return `${(us / 1e6).toPrecision(3)} s`;
  if (us >= 1000) return `${us >= 1e5 ? Math.round(us / 1000) : (us / 1000).toPrecision(3)} ms`;
  return `${us >= 100 ? Math.round(us) : us.toPrecision(us < 1 ? 1 : 2)} us`;
}

export function percentText(part, whole) {
  const percent = whole ? (100 * part) / whole : 0;
  return percent && percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

/** A choice's time in one run of the program, all layers of its block. */
export const timeOf = (choice) => choice.us * choice.layers;

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** The choices of a program by block, in order, each with its layers and its whole time. */
export function blocksOf(choices) {
  const found = new Map();
  for (const choice of choices) {
    const { block: name, layers } = choice;
    if (!found.has(name)) found.set(name, { name, layers, choices: [] });
    found.get(name).choices.push(choice);
  }
  return [...found.values()].map((block) => ({ ...block, us: sum(block.choices.map(timeOf)) }));
}

/** Rectangles of a picture, in percent of it: one layer stands beside the other as wide as its time,
 * and what its ops are for is as high as their share of that. Labels stand where there is room. */
export function layersDrawn(blocks) {
  const whole = sum(blocks.map(({ us }) => us)) || 1;
  const rectangles = [], labels = [];
  let x = 0;
  for (const { layers, name, us, choices } of blocks) {
    const width = (100 * us) / whole / layers;
    for (let layer = 0; layer < layers; layer++) {
      let y = 0;
      for (const family of Object.keys(LEGEND)) {
        const own = choices.filter(({ ops }) => familyOf(ops) === family);
        const height = (100 * sum(own.map(timeOf))) / (us || 1);
        if (height) rectangles.push({ family, x, y, width, height });
        y += height;
      }
      x += width;
    }
    const text = layers > 1 ? `${name} × ${layers}` : name;
    const middle = x - (width * layers) / 2;
    if (width * layers > 1.2 * text.length) labels.push({ text, x: middle });
  }
  return { rectangles, labels };
}

/** The same picture in words. */
export function layersText(blocks) {
  const whole = sum(blocks.map(({ us }) => us));
  const parts = blocks.map(({ name, layers, us }) =>
    `${name}${layers > 1 ? `, ${layers} layers` : ""}: ${percentText(us, whole)}`);
  return `Share of the predicted time: ${parts.join("; ")}.`;
}

/** A program in words, as the list of them names it. */
export function programText({ segment, tokens, reqs, pages, rows, guard }) {
  const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const bounds = rows ? [many(rows, "row")]
    : [many(tokens, "token"), many(reqs, "request"), many(pages, "page")];
  return `${segment}: up to ${bounds.join(", ")}${guard === "always" ? "" : ` where ${guard}`}`;
}

/** How long a program takes, and how that is known. */
export function priceText({ us, measured_us: measured }) {
  const share = measured ? `${percentText(measured, us)} of it measured` : "all of it estimated";
  return `${timeText(us)} a run, ${share}`;
}

/** What this server's own steps took, of its metrics; empty where it has none of that kind. */
export function stepsText(metrics, segment) {
  const of = (series) => metrics?.get(`lostwax_${series}`) ?? 0;
  const steps = of(`engine_steps_total{segment="${segment}"}`);
  const seconds = of(`engine_step_seconds_total{entry="${segment}"}`);
  if (!steps || !seconds) return "";
  const mean = timeText((1e6 * seconds) / steps);
  return `This server's ${segment} steps took ${mean} on average, heads and all programs together.`;
}

/** Pairs of what is told of a choice when it is asked for. */
export function choiceText(choice) {
  const { knobs, source, estimate_us: estimate, prepared_us: prepared, proof } = choice;
  const set = Object.entries(knobs).map(([name, value]) => `${name} = ${value}`).join(", ");
  const isMeasured = source === "record";
  return [
    ["Ops", choice.ops.join(" + ")],
    ["Lowering", `${choice.lowering}${choice.portable ? " (any target has it)" : ""}`],
    ...(set ? [["Set to", set]] : []),
    ["Time in one layer", `${timeText(choice.us)}, ${isMeasured ? "measured" : "estimated"}`],
    ...(isMeasured && estimate ? [["Estimated", timeText(estimate)]] : []),
    ...(prepared ? [["Of it once a step", timeText(prepared)]] : []),
    ["Proof", proofText(proof)],
  ];
}

function proofText(proof) {
  if (!proof) return "none on this device";
  if (proof.max_error === null || proof.rms_error === null) return `${proof.state}, never ran here`;
  const [max, rms] = [proof.max_error, proof.rms_error].map((each) => each.toExponential(1));
  return `${proof.state} here, error ${max} at most, ${rms} RMS`;
}
