// The connection of a page to its kernel: one WebSocket, opened again when it breaks.
//
// The server keeps the kernel's messages while no page is connected and replays them to a page that
// reconnects with the same session. What the page sends while it is disconnected waits here; what
// was sent on a breaking connection, and never acknowledged by the kernel, is sent again (see
// `settle`).

import { type Buffer, type Channel, type Message, pack, SUBPROTOCOL, unpack } from './protocol';

/** `connecting`: the first time. `lost`: retrying. `ended`: there is no kernel any more. */
export type State = 'connecting' | 'live' | 'lost' | 'ended';

/** Called with each message that a sent message causes. */
export type Listener = (message: Message) => void;

interface Pending {
  frame: Uint8Array<ArrayBuffer>;
  listener: Listener;
  acknowledged: boolean;
  // The number of the connection over which it was last sent.
  connection: number;
}

// Seconds between attempts; the last one repeats.
const DELAYS = [0.2, 0.5, 1, 2, 4, 8];
// Milliseconds between two looks at the bytes that are not sent yet.
const WATCH_MS = 200;
// Seconds after which a connection without an answer is taken to be lost.
const PROBE_SECONDS = 5;
// The same while a file is being sent, behind which the question waits.
const PROBE_SENDING_SECONDS = 120;
// The code with which a server closes a connection on which a message was too large for it.
const TOO_LARGE = 1009;
// The status of a kernel whose WebSockets a proxy withholds (server/origins.py).
const WITHHELD = 421;

export class Kernel {
  /** Called with every message in order; the next one waits until this call has finished. */
  onMessage: (message: Message) => Promise<void> | void = () => {};
  /** Called when the state changes, and when a connection was made again. */
  onState: (state: State) => void = () => {};
  /** Why the server ended the kernel, in one word; empty where it did not say. */
  reason = '';
  /** Called with true while sending takes long, and with false when everything is sent. */
  onSending: (sending: boolean) => void = () => {};
  /** Called for each message with a file: whether it is too large, and is not sent. */
  onFile: (tooLarge: boolean) => void = () => {};
  state: State = 'connecting';

  private readonly session = crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  private readonly pending = new Map<string, Pending>();
  private readonly outbox: Uint8Array<ArrayBuffer>[] = [];
  private socket: WebSocket | undefined;
  private connection = 0;
  private counter = 0;
  private attempts = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watch: ReturnType<typeof setInterval> | undefined;
  private handled: Promise<void> = Promise.resolve();

  constructor(
    private readonly baseUrl: string,
    readonly id: string,
    private readonly maxMessage: number,
  ) {}

  /** Open the connection, for the first time or again. */
  connect(): void {
    clearTimeout(this.timer);
    if (this.state === 'ended') return;
    this.drop();
    this.connection += 1;
    const url = new URL(
      `${this.baseUrl}api/kernels/${this.id}/channels?session_id=${this.session}`,
      location.href,
    );
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url, SUBPROTOCOL);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.attempts = 0;
      for (const frame of this.outbox.splice(0)) socket.send(frame);
      this.watchSending(socket);
      this.change('live');
    };
    socket.onmessage = (event) => this.receive(unpack(event.data));
    socket.onclose = ({ code }) => {
      if (code === TOO_LARGE) this.refuseLargest();
      this.lose();
    };
    this.socket = socket;
  }

  /** Send a message; `listener` gets the messages that it causes until the kernel is idle again. */
  send(
    type: string,
    content: unknown,
    options: {
      metadata?: Record<string, unknown>;
      buffers?: Buffer[];
      channel?: Channel;
      listener?: Listener;
    } = {},
  ): string {
    const id = `${this.session}_${(this.counter += 1)}`;
    const frame = pack({
      channel: options.channel ?? 'shell',
      header: {
        msg_id: id,
        msg_type: type,
        session: this.session,
        username: '',
        date: new Date().toISOString(),
        version: '5.3',
      },
      parent_header: {},
      metadata: options.metadata ?? {},
      content,
      buffers: options.buffers ?? [],
    });
    this.pending.set(id, {
      frame,
      listener: options.listener ?? (() => {}),
      acknowledged: false,
      connection: this.connection,
    });
    const tooLarge = frame.byteLength > this.maxMessage;
    if (options.buffers?.length) this.onFile(tooLarge);
    if (tooLarge) this.refuse(id);
    else this.transmit(frame);
    return id;
  }

  /**
   * Send unacknowledged messages of earlier connections again. To be called when the kernel has
   * answered a request of this connection: it has then handled everything that reached it before.
   */
  settle(): void {
    for (const [id, pending] of this.pending) {
      if (pending.connection === this.connection) continue;
      if (pending.acknowledged) {
        // It was handled, only the message that says so was lost.
        this.pending.delete(id);
        pending.listener(idleOf(id));
      } else {
        pending.connection = this.connection;
        this.transmit(pending.frame);
      }
    }
  }

  /** Check that the connection still works, after the device slept or its network changed. */
  probe(): void {
    if (this.state === 'lost') return this.connect();
    if (this.state !== 'live') return;
    const probed = this.connection;
    const seconds = this.socket?.bufferedAmount ? PROBE_SENDING_SECONDS : PROBE_SECONDS;
    const timer = setTimeout(() => {
      if (this.connection === probed) this.lose();
    }, seconds * 1000);
    this.send('kernel_info_request', {}, { channel: 'control', listener: () => clearTimeout(timer) });
  }

  /** Ask the server to shut the kernel down, because the visitor leaves the page. */
  shutDown(): void {
    if (this.state === 'ended') return;
    const form = new URLSearchParams(); // not FormData, which the server does not parse
    const xsrf = /(?:^|; )_xsrf=([^;]*)/.exec(document.cookie);
    if (xsrf) form.set('_xsrf', xsrf[1]);
    navigator.sendBeacon(`${this.baseUrl}voila/api/shutdown/${this.id}`, form);
  }

  /** Do not send a message: for whoever waits for it, it is done. */
  private refuse(id: string): void {
    const pending = this.pending.get(id);
    this.pending.delete(id);
    this.handled = this.handled.then(() => pending?.listener(idleOf(id)));
  }

  /** Refuse the message that was too large for the server, or it would be sent for ever. */
  private refuseLargest(): void {
    const [largest] = [...this.pending]
      .filter(([, { acknowledged }]) => !acknowledged)
      .sort(([, { frame: a }], [, { frame: b }]) => b.byteLength - a.byteLength);
    if (!largest) return;
    this.refuse(largest[0]);
    this.onFile(true);
  }

  private transmit(frame: Uint8Array<ArrayBuffer>): void {
    if (this.socket?.readyState !== WebSocket.OPEN) {
      this.outbox.push(frame);
      return;
    }
    this.socket.send(frame);
    this.watchSending(this.socket);
  }

  /**
   * Report whether data are being sent. No percentage: Chromium counts a message as unsent until all
   * of it is sent.
   */
  private watchSending(socket: WebSocket): void {
    if (this.watch !== undefined || socket.bufferedAmount === 0) return;
    this.watch = setInterval(() => {
      const sending = this.socket === socket && socket.bufferedAmount > 0;
      this.onSending(sending);
      if (sending) return;
      clearInterval(this.watch);
      this.watch = undefined;
    }, WATCH_MS);
  }

  private receive(message: Message): void {
    const id = message.parent_header.msg_id ?? '';
    const pending = this.pending.get(id);
    if (pending) pending.acknowledged = true;
    this.handled = this.handled
      .then(() => this.onMessage(message))
      .catch((error) => console.error(error))
      .then(() => {
        const { msg_type: type } = message.header;
        const execution = type === 'status' ? message.content.execution_state : '';
        if (pending) {
          pending.listener(message);
          if (execution === 'idle') this.pending.delete(id);
        }
        // A restarted kernel has none of the page's widgets.
        if (['dead', 'restarting', 'autorestarting'].includes(execution)) {
          this.end(message.content.reason);
        }
        if (type === 'shutdown_reply' && message.channel === 'iopub') this.end();
      });
  }

  /** Close the present socket without waiting for it. */
  private drop(): void {
    const { socket } = this;
    this.socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  private lose(): void {
    if (this.state === 'ended') return;
    this.drop();
    this.change('lost');
    const delay = DELAYS[Math.min(this.attempts, DELAYS.length - 1)];
    this.attempts += 1;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.retry(), delay * 1000);
  }

  /** Ask whether the kernel still exists, which a failed WebSocket does not tell. */
  private async retry(): Promise<void> {
    try {
      const answer = await fetch(`${this.baseUrl}api/kernels/${this.id}`, { cache: 'no-store' });
      if (answer.status === WITHHELD) return this.end('proxy');
      if (answer.status === 404 || answer.status === 403) return this.end();
      if (answer.ok) return this.connect();
    } catch {
      // No network or no server: retry later.
    }
    this.lose();
  }

  private end(reason = ''): void {
    this.reason = reason;
    clearTimeout(this.timer);
    this.drop();
    this.change('ended');
  }

  private change(state: State): void {
    if (this.state === state && state !== 'live') return;
    this.state = state;
    this.onState(state);
  }
}

function idleOf(id: string): Message {
  return {
    channel: 'iopub',
    header: { msg_id: '', msg_type: 'status', session: '', username: '', date: '', version: '5.3' },
    parent_header: { msg_id: id },
    metadata: {},
    content: { execution_state: 'idle' },
    buffers: [],
  };
}
