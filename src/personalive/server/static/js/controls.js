// The controls of docs/protocol.md as labelled inputs. Changes are sent together, a moment after the last one.
import { byId, element } from "./dom.js";
/** @import { ControlRange, ControlValue, Controls } from "./api.js" */

/**
 * @typedef {object} Control
 * @property {string} name
 * @property {string} label
 * @property {"range"|"number"|"checkbox"|"select"|"automatic"} input
 * @property {string} [hint] of an automatic control: the label of its checkbox
 * @property {number} [step]
 * @property {(value: number) => string} [text] of a range's value
 * @property {Record<string, string>} [options] of a select, by value
 * @property {ControlValue} [default] instead of the server's
 * @property {boolean} [timing] shown in the panel "Timing"
 * @property {boolean} [optional] left out where the model gives it no range
 */
/**
 * One control's nodes; read() gives undefined while the input is invalid.
 * @typedef {{nodes: HTMLElement[], read: () => ControlValue|undefined, write: (value: ControlValue) => void}} Field
 */

const DEBOUNCE_MS = 150;
const FIRST = 30; // largest first value where "automatic" is switched off

const percent = (/** @type {number} */ value) => `${Math.round(value * 100)} %`;

/** @type {Control[]} */
const CONTROLS = [
  { name: "expression", label: "Expression", hint: "How far the face leaves the portrait's own expression", input: "range", step: 0.05, text: percent },
  { name: "mouth", label: "Mouth", hint: "How far the mouth opens", input: "range", step: 0.05, text: percent },
  { name: "eyes", label: "Eyelids", hint: "How far the eyes close; 0 % never blinks", input: "range", step: 0.05, text: percent },
  { name: "head_motion", label: "Head motion", hint: "How far the head leaves the portrait's own pose", input: "range", step: 0.05, text: percent },
  { name: "smoothing", label: "Smoothing", hint: "Calmer, but a little later", input: "range", step: 0.05, text: percent },
  { name: "pose", label: "Head angles", input: "select", options: { absolute: "as yours", relative: "from neutral" } },
  { name: "mirror", label: "Mirror left and right", input: "checkbox", default: true },
  { name: "visible_mark", label: "Label every frame: AI-generated", input: "checkbox" },
  { name: "output_frame", label: "Show", input: "select", options: { square: "the animated square", portrait: "the whole photograph" } },
  { name: "keyframes", label: "Add keyframes", input: "checkbox" },
  { name: "keyframe_threshold", label: "Keyframe threshold", input: "number", step: 0.5 },
  { name: "seed", label: "Noise seed", input: "number", step: 1 },
  { name: "driving_fps", label: "Frame rate", hint: "As fast as the device keeps up", input: "automatic", step: 1, text: (value) => `${value} fps` },
  { name: "steps", label: "Denoising steps", hint: "As many as the server chose", input: "automatic", step: 1, optional: true },
  { name: "delay_ms", label: "Target delay", hint: "Shows frames no sooner than this: to line up sound", input: "range", step: 10, text: (value) => `${value} ms`, timing: true },
];

const idOf = (/** @type {Control} */ control) => `control-${control.name}`;

/** @param {Control} control @param {HTMLElement} more */
const head = (control, more) =>
  element("div", { className: "control-head" }, element("label", { htmlFor: idOf(control), textContent: control.label }), more);

/** @param {Control & ControlRange} control @param {string} type */
function numberInput(control, type) {
  const { min = 0, max = Infinity, step = 1 } = control;
  const limits = { min: String(min), max: String(Math.min(max, Number.MAX_SAFE_INTEGER)), step: String(step) };
  return element("input", { id: idOf(control), type, ...limits, data: { testid: idOf(control) } });
}

/** @param {Control & ControlRange} control */
function buildRange(control) {
  const { text = String, hint } = control;
  const input = numberInput(control, "range");
  const output = element("output", { attributes: { for: input.id } });
  const show = () => { output.textContent = text(input.valueAsNumber); };
  input.addEventListener("input", show);
  /** @type {HTMLElement[]} */ const hints = hint ? [element("p", { className: "hint", textContent: hint })] : [];
  const write = (/** @type {ControlValue} */ value) => { input.value = String(value); show(); };
  const nodes = [head(control, output), input, ...hints];
  return { input, output, nodes, read: () => input.valueAsNumber, write };
}

/** @type {Record<Control["input"], (control: Control & ControlRange) => Field>} */
const BUILDERS = {
  range: buildRange,
  number(control) {
    const input = numberInput(control, "number");
    const read = () => (input.checkValidity() && input.value !== "" ? input.valueAsNumber : undefined);
    return { nodes: [head(control, input)], read, write: (value) => { input.value = String(value); } };
  },
  checkbox(control) {
    const input = element("input", { id: idOf(control), type: "checkbox", data: { testid: idOf(control) } });
    const label = element("label", { className: "check" }, input, control.label);
    return { nodes: [label], read: () => input.checked, write: (value) => { input.checked = value === true; } };
  },
  select(control) {
    const choices = Object.entries(control.options ?? {}).map(([value, textContent]) => element("option", { value, textContent }));
    const input = element("select", { id: idOf(control), data: { testid: idOf(control) } }, ...choices);
    return { nodes: [head(control, input)], read: () => input.value, write: (value) => { input.value = String(value); } };
  },
  automatic(control) {
    const { input, output, nodes: [title], ...number } = buildRange(control);
    const automatic = element("input", { type: "checkbox" });
    const label = element("label", { className: "check" }, automatic, control.hint ?? "");
    const first = Math.min(control.max ?? FIRST, FIRST);
    const write = (/** @type {ControlValue} */ value) => {
      automatic.checked = input.disabled = value === null;
      number.write(value ?? first);
      if (value === null) output.textContent = "automatic";
    };
    automatic.addEventListener("input", () => write(automatic.checked ? null : first));
    return { nodes: [title, label, input], read: () => (automatic.checked ? null : number.read()), write };
  },
};

/** All controls. What the user changed is applied to the next session too. */
export class ControlsPanel {
  /**
   * @param {(changes: Controls) => Promise<Controls|null>} send
   *   sends changes; resolves to all controls, or null where there is no session
   */
  constructor(send) {
    this.send = send;
    /** @type {Controls} */ this.changed = {};
    /** @type {Controls} */ this.unsent = {};
    /** @type {Controls} */ this.inFlight = {};
    this.timer = 0;
    /** @type {(Field & {name: string, default: ControlValue})[]} */ this.fields = [];
  }

  /**
   * Makes the inputs.
   * @param {Record<string, ControlRange>} ranges the server's, by control
   */
  build(ranges) {
    const known = CONTROLS.filter(({ name, optional }) => !optional || ranges[name].max !== undefined);
    this.fields = known.map((shown) => {
      const control = { ...ranges[shown.name], ...shown };
      const field = { name: control.name, default: control.default, ...BUILDERS[control.input](control) };
      field.write(field.default);
      const box = element("div", { className: "control" }, ...field.nodes);
      box.addEventListener("input", () => {
        const value = field.read();
        if (value !== undefined) this.change({ [field.name]: value });
      });
      byId(control.timing ? "delay-control" : "controls").append(box);
      return field;
    });
  }

  /** @param {Controls} changes by the user */
  change(changes) {
    Object.assign(this.changed, changes);
    Object.assign(this.unsent, changes);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), DEBOUNCE_MS);
  }

  async flush() {
    this.inFlight = this.unsent;
    this.unsent = {};
    const all = await this.send(this.inFlight);
    this.inFlight = {};
    if (all) this.show(all);
  }

  /**
   * Shows the server's values, except where the user is just changing one.
   * @param {Controls} values
   */
  show(values) {
    for (const { name, write } of this.fields) {
      if (name in values && !(name in this.unsent) && !(name in this.inFlight)) write(values[name]);
    }
  }

  /** Sets all controls to their defaults. */
  reset() {
    for (const field of this.fields) field.write(field.default);
    this.change(Object.fromEntries(this.fields.map((field) => [field.name, field.default])));
    this.changed = {};
  }
}
