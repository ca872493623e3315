// What the drop zone is answered: page/dropzone.py and page/ui.py do the same for Voilà's page.

import type { Answers } from './answers';
import type { Classifier, Reply } from './classifier';
import { config } from './config';
import { Widget } from './widget';

interface Photo {
  kind: 'photo';
  name: string;
  /** Of the photos of one drop, from 0. */
  index: number;
  count: number;
}

/** What the drop zone sends. A frame comes along, or the file if it is not too large. */
type Message = Photo | { kind: 'example'; index: number } | { kind: 'frame' } | { kind: 'closed' };

const MAX_NAME = 200;

const bytes = (base64: string): Uint8Array =>
  Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

export class Photos {
  readonly widget: Widget<Message>;
  private readonly ready: Promise<void>;
  private isReady!: () => void;
  /** Counts how often the camera was closed. */
  private closed = 0;

  constructor(
    private readonly classifier: Classifier,
    private readonly answers: Answers,
  ) {
    this.ready = new Promise((resolve) => (this.isReady = resolve));
    const examples = config.drop.examples.map(({ name, thumbnail }) => ({
      name,
      thumbnail: bytes(thumbnail),
    }));
    const { max_bytes } = config.limits;
    this.widget = new Widget({ ...config.drop, max_bytes, examples }, (message, [content]) =>
      this.receive(message, content),
    );
  }

  /** The model is loaded. */
  start(): void {
    this.isReady();
    this.say('');
  }

  private async receive(message: Message, content: unknown): Promise<void> {
    if (message.kind === 'closed') {
      this.closed += 1;
      return this.answers.restore();
    }
    if (!this.classifier.isReady) this.say(config.texts.waiting);
    if (message.kind === 'frame') return this.follow(content as ImageBitmap);
    if (message.kind === 'example') this.answers.show(await this.example(message.index));
    else await this.photo(message, content as Blob | undefined);
    this.widget.reply({ kind: 'done' });
  }

  private async photo({ name, index, count }: Photo, file?: Blob): Promise<void> {
    if (count === 1) return this.answers.show(await this.reply(file));
    if (index === 0) this.answers.clear();
    this.answers.addRow(name.slice(0, MAX_NAME), await this.reply(file), count);
  }

  private async example(index: number): Promise<Reply> {
    try {
      const address = new URL(config.drop.examples[index].file, document.baseURI);
      const response = await fetch(address);
      return response.ok ? this.reply(await response.blob()) : config.words.unexpected;
    } catch {
      return config.words.unexpected;
    }
  }

  /** The drop zone keeps back a file that is too large. */
  private reply(file?: Blob): Promise<Reply> {
    if (!file) return Promise.resolve(config.words.too_many_bytes);
    const explain = config.model.evidence;
    return this.classifier.predict(file, { explain, preview: true });
  }

  /** Answer a frame of the camera, and ask for the next. */
  private async follow(frame: ImageBitmap): Promise<void> {
    const closed = this.closed;
    await this.ready;
    const reply = await this.classifier.predict(frame, { explain: false, preview: false });
    if (closed !== this.closed) return;
    if (typeof reply !== 'string') this.answers.follow(reply);
    this.widget.reply({ kind: 'next' });
  }

  private say(text: string): void {
    this.widget.reply({ kind: 'say', text });
  }
}
