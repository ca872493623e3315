// The connection of a page to its kernel: one WebSocket, opened again when the line breaks.
//
// The server keeps what a kernel says while nobody is connected and replays it to a page that comes
// back with the same session. What the page sends while the line is down waits here; what was sent
// into a breaking line, and was never acknowledged by the kernel, is sent once more (see `settle`).

import { type Buffer, type Channel, type Message, pack, SUBPROTOCOL, unpack } from './protocol';

/** `connecting`: the first time. `lost`: trying again. `ended`: there is no kernel any more. */
export type Line = 'connecting' | 'live' | 'lost' | 'ended';

/** What a sender wants to hear of the messages that its own message causes. */
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
// Milliseconds between two looks at what has not left yet.
const WATCH_MS = 200;
// Seconds that a sleeping line may take to prove that it lives.
const PROBE_SECONDS = 5;

export class Kernel {
  /** Called with every message, one after the other: the next waits until this one is handled. */
  onMessage: (message: Message) => Promise<void> | void = () => {};
  /** Called when the line changes. */
  onLine: (line: Line) => void = () => {};
  /** Called with true when a message takes long to leave, and with false when all have left. */
  onSending: (sending: boolean) => void = () => {};
  line: Line = 'connecting';

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
  ) {}

  /** Open the line, for the first time or once more. */
  connect(): void {
    clearTimeout(this.timer);
    if (this.line === 'ended') return;
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
    socket.onclose = () => this.lose();
    this.socket = socket;
  }

  /** Send a message; `listener` hears what it causes until the kernel is done with it. */
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
    this.transmit(frame);
    return id;
  }

  /**
   * Put messages of earlier connections in order. To be called when the kernel has answered a
   * request of this connection: it has then dealt with all that reached it before.
   */
  settle(): void {
    for (const [id, pending] of this.pending) {
      if (pending.connection === this.connection) continue;
      if (pending.acknowledged) {
        // It was handled, only the end of the handling went unheard.
        this.pending.delete(id);
        pending.listener(idleOf(id));
      } else {
        pending.connection = this.connection;
        this.transmit(pending.frame);
      }
    }
  }

  /** Find out whether the line still works, after the device slept or its network changed. */
  probe(): void {
    if (this.line === 'lost') return this.connect();
    if (this.line !== 'live') return;
    const probed = this.connection;
    const timer = setTimeout(() => {
      if (this.connection === probed) this.lose();
    }, PROBE_SECONDS * 1000);
    this.send('kernel_info_request', {}, { channel: 'control', listener: () => clearTimeout(timer) });
  }

  /** Leave the page: tell the server that the kernel is not needed any more. */
  leave(): void {
    if (this.line === 'ended') return;
    const form = new FormData();
    const xsrf = /(?:^|; )_xsrf=([^;]*)/.exec(document.cookie);
    if (xsrf) form.set('_xsrf', xsrf[1]);
    navigator.sendBeacon(`${this.baseUrl}voila/api/shutdown/${this.id}`, form);
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
   * Tell that a slow line is busy. Not how far it is: Chromium counts a message as unsent until all
   * of it has left.
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
        const state = type === 'status' ? message.content.execution_state : '';
        if (pending) {
          pending.listener(message);
          if (state === 'idle') this.pending.delete(id);
        }
        // A kernel that was started again knows nothing of this page.
        if (state === 'dead' || state === 'restarting' || state === 'autorestarting') this.end();
        if (type === 'shutdown_reply' && message.channel === 'iopub') this.end();
      });
  }

  /** Forget the present socket without waiting for it. */
  private drop(): void {
    const { socket } = this;
    this.socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  private lose(): void {
    if (this.line === 'ended') return;
    this.drop();
    this.change('lost');
    const delay = DELAYS[Math.min(this.attempts, DELAYS.length - 1)];
    this.attempts += 1;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.retry(), delay * 1000);
  }

  /** Ask whether the kernel is still there, which a failed WebSocket does not tell. */
  private async retry(): Promise<void> {
    try {
      const answer = await fetch(`${this.baseUrl}api/kernels/${this.id}`, { cache: 'no-store' });
      if (answer.status === 404 || answer.status === 403) return this.end();
      if (answer.ok) return this.connect();
    } catch {
      // No network, or no server: try again later.
    }
    this.lose();
  }

  private end(): void {
    clearTimeout(this.timer);
    this.drop();
    this.change('ended');
  }

  private change(line: Line): void {
    if (this.line === line && line !== 'live') return;
    this.line = line;
    this.onLine(line);
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
