// The widget manager: it builds the models from the state in the HTML, keeps them in sync with the
// kernel, and creates their views.

import type { DOMWidgetView, IClassicComm, IWidgetManager, WidgetModel } from '@jupyter-widgets/base';
import { ManagerBase } from '@jupyter-widgets/base-manager';
import { Comm, Comms } from './comm';
import type { Kernel } from './kernel';
import type { Message } from './protocol';
import { classOf, UnknownModel } from './registry';

/** The state of all widgets, as notebooks carry it (application/vnd.jupyter.widget-state+json). */
export interface WidgetState {
  state: Record<
    string,
    {
      model_name: string;
      model_module: string;
      model_module_version: string;
      state: Record<string, unknown>;
      buffers?: { encoding: 'base64'; data: string; path: (string | number)[] }[];
    }
  >;
}

/** Receives the messages that one request caused; see OutputModel. */
export type Hook = (message: Message) => void;

export class WidgetManager extends ManagerBase implements IWidgetManager {
  readonly hooks = new Map<string, Hook>();
  private readonly comms: Comms;

  constructor(readonly kernel: Kernel) {
    super();
    this.comms = new Comms(kernel, (comm, message) => this.opened(comm, message));
  }

  /** Build the models whose state is in the HTML; the kernel is not asked. */
  async restore({ state: models }: WidgetState): Promise<void> {
    await Promise.all(
      Object.entries(models)
        .filter(([id]) => !this.has_model(id))
        .map(async ([id, model]) => {
          for (const { data, path } of model.buffers ?? []) {
            place(model.state, path, viewOf(data));
          }
          const comm = this.comms.get(this.comm_target_name, id);
          await this.new_model({ ...model, model_id: id, comm }, model.state as any);
        }),
    );
  }

  /** Fetch the present state of every model from the kernel. */
  async refresh(): Promise<void> {
    await this._loadFromKernel();
    this.kernel.settle();
  }

  /** Handle a message of the kernel that concerns widgets. */
  async handle(message: Message): Promise<void> {
    if (message.header.msg_type.startsWith('comm_')) await this.comms.handle(message);
    else this.hooks.get(message.parent_header.msg_id ?? '')?.(message);
  }

  /** Create a view of a model. */
  async view(id: string): Promise<DOMWidgetView> {
    return (await this.create_view(await this.get_model(id))) as DOMWidgetView;
  }

  protected async loadClass(name: string, module: string): Promise<any> {
    return classOf(name, module);
  }

  protected async _create_comm(
    target: string,
    id: string,
    data?: any,
    metadata?: any,
    buffers?: ArrayBuffer[],
  ): Promise<IClassicComm> {
    const comm = this.comms.get(target, id);
    // Without data the kernel has opened it already.
    if (data || metadata) comm.open(data, undefined, metadata, buffers);
    return comm;
  }

  protected async _get_comm_info(): Promise<Record<string, unknown>> {
    return new Promise((resolve) => {
      this.kernel.send(
        'comm_info_request',
        { target_name: this.comm_target_name },
        {
          listener: ({ header, content }) => {
            if (header.msg_type === 'comm_info_reply') resolve(content.comms);
          },
        },
      );
    });
  }

  /** Build a model; on failure one that says so, so that one widget cannot break the page. */
  async _make_model(options: any, state: any = {}): Promise<WidgetModel> {
    try {
      return await super._make_model(options, state);
    } catch (error) {
      console.error(error);
      const { comm, model_id, model_name: name, model_module: module } = options;
      const attributes = { _view_name: 'UnknownView' };
      const model = new UnknownModel(attributes, { widget_manager: this, model_id, comm });
      return Object.assign(model, { name, module });
    }
  }

  private async opened(comm: Comm, message: Message): Promise<WidgetModel | undefined> {
    if (comm.target_name !== this.comm_target_name) return undefined;
    return this.handle_comm_open(comm, message as any);
  }
}

function viewOf(base64: string): DataView {
  return new DataView(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
}

function place(state: any, path: (string | number)[], value: DataView): void {
  const parent = path.slice(0, -1).reduce((inner, key) => inner[key], state);
  parent[path[path.length - 1]] = value;
}
