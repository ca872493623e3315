// What the page shows of its answers: the state that icon_classifier/page/answer.py keeps for
// Voilà's page.

import type { Reply } from './classifier';
import { config, fill } from './config';
import { csv } from './csv';
import type { Answer } from './messages';
import { Widget } from './widget';

const MAX_LIVE_BARS = 5; // without the others behind “more”, which each frame would close

/** One answer in full. */
interface Detail {
  line: string;
  traits: { answer: object; heat: object; preview: Uint8Array };
}

/** A row of the table: a photo's answer, or the problem. */
interface Row {
  name: string;
  problem?: string;
  label?: string;
  shown?: string;
  probability?: number;
  number?: string;
  known?: boolean;
  thumbnail?: Uint8Array | null;
}

/** What the answer's module sends. */
type Message = { kind: 'open'; index: number } | { kind: 'csv' };

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

function rowOf(name: string, reply: Reply): Row {
  if (typeof reply === 'string') return { name, problem: reply };
  const { labels, shown } = config.model;
  const [index, value] = reply.ranking[0];
  return {
    name,
    label: labels[index],
    shown: shown[index],
    probability: value,
    number: probability(value),
    known: reply.known,
    thumbnail: reply.thumbnail,
  };
}

export class Answers {
  readonly widget: Widget<Message>;
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
    this.rows = [...this.rows, rowOf(name, reply)];
    this.widget.set({ rows: this.rows });
    if (this.rows.length < count) return;
    const failed = this.rows.filter(({ problem }) => problem).length;
    const values = { answered: count - failed, count, failed };
    const line = fill(failed ? config.summary.some : config.summary.all, values);
    this.shown = { ...this.shown, line };
    this.say(line);
  }

  /** Show the answer for a frame of the camera, for as long as it is open. */
  follow(answer: Answer): void {
    const { ranking, known } = answer;
    const label = config.model.shown[ranking[0][0]];
    const line = known ? label : fill(config.texts.live_unsure, { label });
    if (line !== this.line) this.say(line); // not with each frame, for it is read out
    this.widget.set(traitsOf({ ...answer, ranking: ranking.slice(0, MAX_LIVE_BARS) }));
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
    if (message.kind === 'open') this.open(this.details[message.index], message.index);
    else this.widget.reply({ kind: 'csv', text: this.csv() });
  }

  private csv(): string {
    const rows = this.rows.map(({ name, label = '', number = '', known, problem = '' }) => {
      const isKnown = known === undefined ? '' : known ? 'yes' : 'no';
      return [name, label, number, isKnown, problem];
    });
    return csv([['file', 'label', 'probability', 'known', 'problem'], ...rows]);
  }
}
