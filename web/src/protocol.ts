// Jupyter messages in the WebSocket subprotocol "v1.kernel.websocket.jupyter.org": one binary frame
// per message, with the number of offsets and the offsets of its parts (64-bit, little-endian), then
// the channel's name, the four JSON parts and any number of raw buffers.

export const SUBPROTOCOL = 'v1.kernel.websocket.jupyter.org';

export type Channel = 'shell' | 'iopub' | 'control' | 'stdin';

export interface Header {
  msg_id: string;
  msg_type: string;
  session: string;
  username: string;
  date: string;
  version: string;
}

export interface Message {
  channel: Channel;
  header: Header;
  parent_header: Partial<Header>;
  metadata: Record<string, unknown>;
  // Its shape depends on header.msg_type.
  content: any;
  buffers: DataView[];
}

export type Buffer = ArrayBuffer | ArrayBufferView;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const bytesOf = (buffer: Buffer): Uint8Array =>
  buffer instanceof ArrayBuffer
    ? new Uint8Array(buffer)
    : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);

/** Pack a message into one frame. */
export function pack(message: Omit<Message, 'buffers'> & { buffers: Buffer[] }): Uint8Array<ArrayBuffer> {
  const parts = [
    encoder.encode(message.channel),
    ...[message.header, message.parent_header, message.metadata, message.content].map((part) =>
      encoder.encode(JSON.stringify(part)),
    ),
    ...message.buffers.map(bytesOf),
  ];
  const head = 8 * (parts.length + 2);
  const frame = new Uint8Array(parts.reduce((size, part) => size + part.length, head));
  const view = new DataView(frame.buffer);
  view.setBigUint64(0, BigInt(parts.length + 1), true);
  let offset = head;
  parts.forEach((part, index) => {
    view.setBigUint64(8 * (index + 1), BigInt(offset), true);
    frame.set(part, offset);
    offset += part.length;
  });
  view.setBigUint64(8 * (parts.length + 1), BigInt(offset), true);
  return frame;
}

/** Unpack a frame; the buffers are views into it, not copies. */
export function unpack(frame: ArrayBuffer): Message {
  const view = new DataView(frame);
  const count = Number(view.getBigUint64(0, true));
  const offsets = Array.from({ length: count }, (_, index) =>
    Number(view.getBigUint64(8 * (index + 1), true)),
  );
  const part = (index: number) =>
    new Uint8Array(frame, offsets[index], offsets[index + 1] - offsets[index]);
  const json = (index: number) => JSON.parse(decoder.decode(part(index)));
  return {
    channel: decoder.decode(part(0)) as Channel,
    header: json(1),
    parent_header: json(2),
    metadata: json(3),
    content: json(4),
    buffers: offsets
      .slice(5, -1)
      .map((offset, index) => new DataView(frame, offset, offsets[index + 6] - offset)),
  };
}
