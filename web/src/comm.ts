// Comms: the channels between a widget in the kernel and its model in the page, with the interface
// that @jupyter-widgets/base expects.

import type { ICallbacks, IClassicComm } from '@jupyter-widgets/base';
import type { Kernel, Listener } from './kernel';
import type { Buffer, Message } from './protocol';

type Handler = (message: any) => unknown;

export class Comm implements IClassicComm {
  private onMessage: Handler | undefined;
  private onClose: Handler | undefined;
  private readonly waiting: Message[] = [];

  constructor(
    private readonly comms: Comms,
    readonly target_name: string,
    readonly comm_id: string,
  ) {}

  open(data: any, callbacks?: ICallbacks, metadata?: any, buffers?: Buffer[]): string {
    const { target_name, comm_id } = this;
    return this.send_as('comm_open', { target_name, comm_id, data }, callbacks, metadata, buffers);
  }

  send(data: any, callbacks?: ICallbacks, metadata?: any, buffers?: Buffer[]): string {
    const { comm_id } = this;
    return this.send_as('comm_msg', { comm_id, data }, callbacks, metadata, buffers);
  }

  close(data: any = {}, callbacks?: ICallbacks, metadata?: any, buffers?: Buffer[]): string {
    const { comm_id } = this;
    this.comms.remove(this);
    return this.send_as('comm_close', { comm_id, data }, callbacks, metadata, buffers);
  }

  on_msg(callback: Handler): void {
    this.onMessage = callback;
    for (const message of this.waiting.splice(0)) callback(message);
  }

  on_close(callback: Handler): void {
    this.onClose = callback;
  }

  /** Pass a message of the kernel on; it is kept until a model listens. */
  receive(message: Message): unknown {
    if (this.onMessage) return this.onMessage(message);
    this.waiting.push(message);
    return undefined;
  }

  closed(message: Message): void {
    this.onClose?.(message);
  }

  private send_as(
    type: string,
    content: unknown,
    callbacks?: ICallbacks,
    metadata: Record<string, unknown> = {},
    buffers: Buffer[] = [],
  ): string {
    const listener = callbacks && listenerOf(callbacks);
    return this.comms.kernel.send(type, content, { metadata, buffers, listener });
  }
}

export class Comms {
  private readonly comms = new Map<string, Comm>();

  constructor(
    readonly kernel: Kernel,
    private readonly opened: (comm: Comm, message: Message) => Promise<unknown>,
  ) {}

  /** Return the comm with this id, registering it if it is new; nothing is sent. */
  get(target: string, id: string): Comm {
    let comm = this.comms.get(id);
    if (!comm) {
      comm = new Comm(this, target, id);
      this.comms.set(id, comm);
    }
    return comm;
  }

  remove(comm: Comm): void {
    this.comms.delete(comm.comm_id);
  }

  async handle(message: Message): Promise<void> {
    const { comm_id: id, target_name: target } = message.content;
    switch (message.header.msg_type) {
      case 'comm_open':
        // While the notebook still runs, the page may already have it from the HTML.
        if (!this.comms.has(id)) await this.opened(this.get(target, id), message);
        break;
      case 'comm_msg':
        await this.comms.get(id)?.receive(message);
        break;
      case 'comm_close': {
        const comm = this.comms.get(id);
        this.comms.delete(id);
        comm?.closed(message);
        break;
      }
    }
  }
}

const OUTPUTS = new Set(['stream', 'display_data', 'execute_result', 'error']);

function listenerOf({ shell, iopub }: ICallbacks): Listener {
  return (message) => {
    const type = message.header.msg_type as any;
    // The callbacks are typed with the messages of @jupyterlab/services, which have the same shape.
    const same = message as any;
    if (message.channel === 'shell') shell?.reply?.(same);
    else if (type === 'status') iopub?.status?.(same);
    else if (type === 'clear_output') iopub?.clear_output?.(same);
    else if (OUTPUTS.has(type)) iopub?.output?.(same);
  };
}
