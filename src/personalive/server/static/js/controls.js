// The controls of docs/protocol.md as labelled inputs. Changes are sent together, a moment after the last one.
import { element } from "./dom.js";

const DEBOUNCE_MS = 150;
const share = (value) => `${Math.round(value * 100)} %`;

/** Every control: its input, its limits and what it starts with. `delay_ms` is shown with the timing figures. */
const CONTROLS = [
  { name: "expression", label: "Expression", hint: "How far the face leaves the portrait's own expression", input: "range", min: 0, max: 2, step: 0.05, initial: 1, text: share },
  { name: "mouth", label: "Mouth", hint: "How far the mouth opens", input: "range", min: 0, max: 2, step: 0.05, initial: 1, text: share },
  { name: "eyes", label: "Lids", hint: "How far the eyes close; 0 % never blinks", input: "range", min: 0, max: 2, step: 0.05, initial: 1, text: share },
  { name: "head_motion", label: "Head motion", hint: "How far the head leaves the portrait's own pose", input: "range", min: 0, max: 2, step: 0.05, initial: 1, text: share },
  { name: "smoothing", label: "Smoothing", hint: "Calmer, but a little later", input: "range", min: 0, max: 0.95, step: 0.05, initial: 0, text: share },
  { name: "pose", label: "Head angles", input: "select", initial: "absolute", options: { absolute: "as yours", relative: "from neutral" } },
  { name: "mirror", label: "Mirror left and right", input: "checkbox", initial: true },
  { name: "keyframes", label: "Remember telling frames", input: "checkbox", initial: true },
  { name: "keyframe_threshold", label: "How different they must be", input: "number", min: 0, max: 1000, step: 0.5, initial: 17 },
  { name: "seed", label: "Seed of the noise", input: "number", min: 0, max: 4294967295, step: 1, initial: 0 },
  { name: "driving_fps", label: "Frames made per second", input: "optional", min: 1, max: 60, step: 1, initial: null, fallback: 30, automatic: "As many as the device keeps up with", text: String },
  { name: "delay_ms", label: "Target delay", hint: "Shows frames no sooner than this: to line up sound", input: "range", min: 0, max: 3000, step: 10, initial: 0, text: (value) => `${value} ms`, place: "delay" },
];

const head = (control, ...more) =>
  element("div", { className: "control-head" }, element("label", { htmlFor: `control-${control.name}`, textContent: control.label }), ...more);

function number(control, type) {
  const { min, max, step } = control;
  return element("input", { id: `control-${control.name}`, type, min, max, step, data: { testid: `control-${control.name}` } });
}

// Each builder gives the nodes of one control with read() and write(value).
const BUILDERS = {
  range(control) {
    const input = number(control, "range");
    const output = element("output", { htmlFor: input.id });
    const tell = () => { output.textContent = control.text(Number(input.value)); };
    input.addEventListener("input", tell);
    const hint = control.hint ? [element("p", { className: "hint", textContent: control.hint })] : [];
    return { nodes: [head(control, output), input, ...hint], read: () => Number(input.value), write: (value) => { input.value = value; tell(); } };
  },
  number(control) {
    const input = number(control, "number");
    const read = () => (input.checkValidity() && input.value !== "" ? Number(input.value) : undefined);
    return { nodes: [head(control, input)], read, write: (value) => { input.value = value; } };
  },
  checkbox(control) {
    const input = element("input", { id: `control-${control.name}`, type: "checkbox", data: { testid: `control-${control.name}` } });
    const label = element("label", { className: "check" }, input, control.label);
    return { nodes: [label], read: () => input.checked, write: (value) => { input.checked = value; } };
  },
  select(control) {
    const options = Object.entries(control.options).map(([value, textContent]) => element("option", { value, textContent }));
    const input = element("select", { id: `control-${control.name}`, data: { testid: `control-${control.name}` } }, ...options);
    return { nodes: [head(control, input)], read: () => input.value, write: (value) => { input.value = value; } };
  },
  optional(control) {
    const range = BUILDERS.range(control);
    const automatic = element("input", { type: "checkbox" });
    const [title, input] = range.nodes;
    const write = (value) => {
      automatic.checked = value === null;
      input.disabled = value === null;
      range.write(value ?? control.fallback);
      if (value === null) title.querySelector("output").textContent = "automatic";
    };
    automatic.addEventListener("input", () => write(automatic.checked ? null : control.fallback));
    const label = element("label", { className: "check" }, automatic, control.automatic);
    return { nodes: [title, label, input], read: () => (automatic.checked ? null : range.read()), write };
  },
};

/** All controls. What the person changed is kept and applied to the next session too. */
export class ControlsPanel {
  /**
   * @param {{main: HTMLElement, delay: HTMLElement}} places
   * @param {(changes: Record<string, any>) => Promise<Record<string, any>|null>} send
   *   sends changes; resolves to all controls, or null where there is no session
   */
  constructor(places, send) {
    this.send = send;
    this.wanted = {};
    this.unsent = {};
    this.inFlight = {};
    this.timer = 0;
    this.fields = CONTROLS.map((control) => this.build(control, places[control.place ?? "main"]));
  }

  build(control, place) {
    const field = { ...control, ...BUILDERS[control.input](control) };
    field.write(control.initial);
    const box = element("div", { className: "control" }, ...field.nodes);
    box.addEventListener("input", () => {
      const value = field.read();
      if (value !== undefined) this.change({ [control.name]: value });
    });
    place.append(box);
    return field;
  }

  /** @param {Record<string, any>} changes by the person */
  change(changes) {
    Object.assign(this.wanted, changes);
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
   * Shows the server's values, except where the person is just changing one.
   * @param {Record<string, any>} values
   */
  show(values) {
    for (const field of this.fields) {
      const { name } = field;
      if (name in values && !(name in this.unsent) && !(name in this.inFlight)) field.write(values[name]);
    }
  }

  /** Everything as it is at first. */
  reset() {
    const initial = Object.fromEntries(this.fields.map((field) => [field.name, field.initial]));
    for (const field of this.fields) field.write(field.initial);
    this.change(initial);
    this.wanted = {};
  }
}
