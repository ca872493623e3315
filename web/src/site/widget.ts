// The model that a front-end module of anywidget is given, where the page itself is the kernel.

type Traits = Record<string, unknown>;
type Listener = (content?: object) => void;

/** `Message` is what its module sends. */
export class Widget<Message> {
  private readonly listeners = new Map<string, Listener[]>();

  constructor(
    private readonly traits: Traits,
    /** Called with each message of the module, and what came along with it. */
    private readonly receive: (message: Message, buffers: unknown[]) => void,
  ) {}

  get(name: string): unknown {
    return this.traits[name];
  }

  on(event: string, listener: Listener): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  send(message: Message, _callbacks?: unknown, buffers: unknown[] = []): void {
    this.receive(message, buffers);
  }

  /** Change traits, as Python does; the module is told of each. */
  set(traits: Traits): void {
    Object.assign(this.traits, traits);
    for (const name of Object.keys(traits)) this.emit(`change:${name}`);
  }

  /** Send the module a message, as Python does. */
  reply(message: { kind: string; text?: string }): void {
    this.emit('msg:custom', message);
  }

  private emit(event: string, content?: object): void {
    for (const listener of this.listeners.get(event) ?? []) listener(content);
  }
}
