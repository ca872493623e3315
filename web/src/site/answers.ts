// What the page shows of its answers: the state that icon_classifier/page/answer.py keeps for
// Voilà's page.

import type { Reply } from './classifier';
import { config, fill } from './config';
import { csv } from './csv';
import type { Answer } from './messages';
import { Widget, type Message } from './widget';

const MAX_LIVE_BARS = 5; // without the others behind “more”, which each frame would close

/** One answer in full. */
interface Detail {
  line: string;
  traits: { answer: object; heat: object; preview: Uint8Array };
}

interface Row {
  name: string;
  problem?: string;
  label?: string;
  number?: string;
  known?: boolean;
  [name: string]: unknown;
}

const NOTHING = { answer: {}, heat: {}, preview: new Uint8Array() };
const probability = (value: number): string => value.toFixed(4);

/** The answer as one line; texts.line in Python. */
function lineOf({ ranking: [[index, value]], known }: Answer): string {
  const label = (known ? config.model.labels : config.model.shown)[index];
  const values = { names: config.line.names, label, probability: probability(value) };
  return fill(known ? config.line.known : config.line.unsure, values);
}

function traitsOf({ ranking, known, heat, preview }: Answer): Detail['traits'] {
  const { shown } = config.model;
  const bars = ranking.map(([index, value]) => [shown[index], value, probability(value)]);
  return {
    answer: { label: shown[ranking[0][0]], known, bars },
    heat: heat ? { ...heat, cells: new DataView(heat.cells.buffer, heat.cells.byteOffset) } : {},
    preview: preview ?? NOTHING.preview,
  };
}

const detailOf = (reply: Reply): Detail =>
  typeof reply === 'string'
    ? { line: reply, traits: NOTHING }
    : { line: lineOf(reply), traits: traitsOf(reply) };

export class Answers {
  readonly widget: Widget;
  private rows: Row[] = [];
  private details: Detail[] = [];
  private shown: Detail = { line: '', traits: NOTHING };
  private opened = -1;
  private line = '';

  constructor(
    /** Shows the line above the answer. */
    private readonly showLine: (line: string) => void,
  ) {
    const traits = { ...config.answer, ...NOTHING, rows: [], opened: -1, feedback: {} };
    this.widget = new Widget(traits, (message) => this.receive(message));
  }

  /** Show the answer for one photo, replacing what is shown. */
  show(reply: Reply): void {
    this.clear();
    this.open(detailOf(reply), -1);
  }

  clear(): void {
    this.rows = [];
    this.details = [];
    this.widget.set({ rows: [] });
    this.open({ line: '', traits: NOTHING }, -1);
  }

  /** Add a photo to the table, which will have `count`. */
  addRow(name: string, reply: Reply, count: number): void {
    this.details.push(detailOf(reply));
    this.rows = [...this.rows, typeof reply === 'string' ? { name, problem: reply } : row(name, reply)];
    this.widget.set({ rows: this.rows });
    if (this.rows.length < count) return;
    const answered = this.rows.filter(({ problem }) => problem === undefined).length;
    const text = answered === count ? config.summary.all : config.summary.some;
    this.shown = { line: fill(text, { answered, count, failed: count - answered }), traits: NOTHING };
    this.say(this.shown.line);
  }

  /** Show the answer for a frame of the camera, for as long as it is open. */
  follow(answer: Answer): void {
    const { traits } = detailOf(answer);
    const { label, known, bars } = traits.answer as any;
    const line = known ? label : fill(config.texts.live_unsure, { label });
    if (line !== this.line) this.say(line); // not with each frame, for it is read out
    this.widget.set({ ...traits, answer: { label, known, bars: bars.slice(0, MAX_LIVE_BARS) } });
  }

  /** The camera is closed: show what was there before. */
  restore(): void {
    this.open(this.shown, this.opened);
  }

  private say(line: string): void {
    this.line = line;
    this.showLine(line);
  }

  private open(detail: Detail, index: number): void {
    this.shown = detail;
    this.opened = index;
    this.say(detail.line);
    this.widget.set({ ...detail.traits, opened: index });
  }

  private receive(message: Message): void {
    if (message.kind === 'open') {
      const index = message.index as number;
      this.open(this.details[index], index);
    } else if (message.kind === 'csv') {
      this.widget.reply({ kind: 'csv', text: this.csv() });
    }
  }

  private csv(): string {
    const known = (value?: boolean) => (value === undefined ? '' : value ? 'yes' : 'no');
    const rows = this.rows.map((row) => [
      row.name,
      row.label ?? '',
      row.number ?? '',
      known(row.known),
      row.problem ?? '',
    ]);
    return csv([['file', 'label', 'probability', 'known', 'problem'], ...rows]);
  }
}

/** A row of the table; see add_row in icon_classifier/page/answer.py. */
function row(name: string, { ranking: [[index, value]], known, thumbnail }: Answer): Row {
  const { labels, shown } = config.model;
  return {
    name,
    label: labels[index],
    shown: shown[index],
    probability: value,
    number: probability(value),
    known,
    thumbnail,
  };
}
