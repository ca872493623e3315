// What icon_classifier/site/build.py wrote into the page.

import type { ModelInfo, ProblemReason, WorkerConfig } from './messages';

export type Texts = Record<string, string>;

export interface Config extends WorkerConfig {
  /** SITE_TEXTS of icon_classifier/page/texts.py. */
  texts: Texts;
  /** Traits of the drop zone; the thumbnail of an example is a JPEG in base64. */
  drop: {
    texts: Texts;
    accept: string;
    max_photos: number;
    shrinks: boolean;
    live: boolean;
    examples: { name: string; thumbnail: string; file: string }[];
  };
  /** Traits of the answer. */
  answer: { texts: Texts };
  /** Templates of the line of an answer, and the classes as `unsure` names them. */
  line: { known: string; unsure: string; names: string };
  /** Templates of the line above the answers for several photos. */
  summary: { all: string; some: string };
  /** Why a photo has no answer. */
  words: Record<ProblemReason, string>;
  /** The front-end modules of the widgets, which Voilà's page runs too. */
  modules: { dropzone: string; answer: string };
  worker: string;
  model: ModelInfo & { shown: string[] };
}

export const config: Config = JSON.parse(
  (document.getElementById('site-config') as HTMLElement).textContent ?? '',
);

/** Fill in the words in braces, all in one pass: a label may hold braces of its own. */
export const fill = (text: string, values: Record<string, unknown>): string =>
  text.replace(/\{(\w+)\}/g, (word, name) => String(values[name] ?? word));
