// Pillow's resampling of pictures with 8 bits a channel, to the byte: weights of 22 bits, along each
// row, then along each column, with 8 bits in between.

import type { PadMode } from '../site/messages';

/** A picture of which parts are read when they are needed; a value is a byte. */
export interface Picture {
  width: number;
  height: number;
  /** 3, or 1 for grey. */
  channels: number;
  /** The values of a part, row by row: its height * width * channels. */
  read(part: Box): Uint8Array;
}

/** Left, top, right and bottom in pixels; what lies beyond the picture is padded. */
export type Box = [number, number, number, number];

/** For each value of the result, `count` places in a side of the source, and their weights. */
interface Taps {
  count: number;
  places: Int32Array;
  weights: Int32Array;
}

interface Filter {
  support: number;
  weight(x: number): number;
}

const PRECISION = 22;
// Rows or columns of a picture that are read at a time.
const STRIP = 256;

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

// Pillow has these two numbers in single precision.
const hamming = (x: number): number => Math.fround(0.54) + Math.fround(0.46) * Math.cos(x);

function cubic(x: number): number {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// Magic Kernel Sharp of 2013 and 2021, by John Costella.
function sharp2013(x: number): number {
  x = Math.abs(x);
  if (x < 0.5) return 17 / 16 - 1.75 * x * x;
  if (x < 1.5) return (1 - x) * (1.75 - x);
  return x < 2.5 ? -0.125 * (x - 2.5) ** 2 : 0;
}

function sharp2021(x: number): number {
  x = Math.abs(x);
  if (x < 0.5) return 577 / 576 - (239 / 144) * x * x;
  if (x < 1.5) return (35 / 36) * (x - 1) * (x - 239 / 140);
  if (x < 2.5) return (1 / 6) * (x - 2) * (65 / 24 - x);
  if (x < 3.5) return (1 / 36) * (x - 3) * (x - 3.75);
  return x < 4.5 ? (-1 / 288) * (x - 4.5) ** 2 : 0;
}

/** By Pillow's numbers. */
const FILTERS: Record<number, Filter> = {
  1: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  2: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  3: { support: 2, weight: cubic },
  4: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  5: { support: 1, weight: (x) => (Math.abs(x) < 1 ? sinc(x) * hamming(x * Math.PI) : 0) },
  6: { support: 2.5, weight: sharp2013 },
  7: { support: 4.5, weight: sharp2021 },
};

/** Where in a side of `length` a place is that may lie beyond it; -1 for a 0. */
function padded(place: number, length: number, mode: PadMode): number {
  if (place >= 0 && place < length) return place;
  if (mode === 'zeros') return -1;
  if (mode === 'border') return place < 0 ? 0 : length - 1;
  const period = Math.max(1, 2 * (length - 1));
  const rest = ((place % period) + period) % period;
  return Math.min(rest, period - rest) % length;
}

function nearest(length: number, size: number): Taps {
  const places = new Int32Array(size).fill(-1);
  const step = length / size;
  // Pillow adds the steps up, whose rounding decides between two pixels.
  for (let i = 0, at = step * 0.5; i < size; i++, at += step) {
    if (at < length) places[i] = Math.trunc(at);
  }
  return { count: 1, places, weights: new Int32Array(size).fill(1 << PRECISION) };
}

function weighted(length: number, size: number, { support, weight }: Filter): Taps {
  const scale = length / size;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  const count = Math.ceil(reach) * 2 + 1;
  const places = new Int32Array(size * count).fill(-1);
  const weights = new Int32Array(size * count);
  const values = new Float64Array(count);
  for (let i = 0; i < size; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    let sum = 0;
    for (let place = start; place < end; place++) {
      const value = weight((place - centre + 0.5) * (1 / stretch));
      values[place - start] = value;
      sum += value;
    }
    for (let place = start; place < end; place++) {
      let value = values[place - start]!;
      if (sum !== 0) value /= sum;
      const at = i * count + place - start;
      places[at] = place;
      weights[at] = Math.trunc(value * (1 << PRECISION) + (value < 0 ? -0.5 : 0.5));
    }
  }
  return { count, places, weights };
}

/** The taps along one side: `start` to `end` of it, padded, becomes `size`. */
function taps(
  side: number,
  [start, end]: [number, number],
  size: number,
  mode: PadMode,
  resample: number,
): Taps {
  const length = end - start;
  // Pillow copies a side that stays as it is; two of its filters would change it.
  const filter = length === size ? undefined : FILTERS[resample];
  const result = filter ? weighted(length, size, filter) : nearest(length, size);
  const { places, weights } = result;
  for (let i = 0; i < places.length; i++) {
    if (places[i]! >= 0) places[i] = padded(places[i]! + start, side, mode);
    if (places[i]! < 0) places[i] = weights[i] = 0;
  }
  return result;
}

const HALF = 1 << (PRECISION - 1);

const clipped = (sum: number): number => Math.min(255, Math.max(0, sum >> PRECISION));

/** Resample rows of `length` values each into `target`. */
function resampleRows(
  { count, places, weights }: Taps,
  values: Uint8Array,
  length: number,
  channels: number,
  target: Uint8Array,
): void {
  let to = 0;
  for (let row = 0; row < values.length; row += length) {
    for (let tap = 0; tap < places.length; tap += count) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = HALF;
        for (let i = tap; i < tap + count; i++) {
          const value = values[row + places[i]! * channels + channel]!;
          sum = (sum + Math.imul(value, weights[i]!)) | 0;
        }
        target[to++] = clipped(sum);
      }
    }
  }
}

/** Resample columns, in rows of `length` values, into rows of `target` that lie `pitch` apart. */
function resampleColumns(
  { count, places, weights }: Taps,
  values: Uint8Array,
  length: number,
  target: Uint8Array,
  pitch: number,
): void {
  const sums = new Int32Array(length);
  for (let tap = 0, to = 0; tap < places.length; tap += count, to += pitch) {
    sums.fill(HALF);
    for (let i = tap; i < tap + count; i++) {
      const row = places[i]! * length;
      const weight = weights[i]!;
      if (weight === 0) continue;
      for (let x = 0; x < length; x++) sums[x]! += Math.imul(values[row + x]!, weight);
    }
    for (let x = 0; x < length; x++) target[to + x] = clipped(sums[x]!);
  }
}

/** A picture that is in memory. */
export function pictureOf(
  values: Uint8Array,
  width: number,
  height: number,
  channels: number,
): Picture {
  const read = ([left, top, right, bottom]: Box): Uint8Array => {
    const length = (right - left) * channels;
    const part = new Uint8Array((bottom - top) * length);
    for (let row = top; row < bottom; row++) {
      const start = (row * width + left) * channels;
      part.set(values.subarray(start, start + length), (row - top) * length);
    }
    return part;
  };
  return { width, height, channels, read };
}

/**
 * Resize a part of a picture.
 *
 * @param part What lies beyond the picture is padded.
 * @param size Width and height of the result.
 * @param resample The number of Pillow's filter.
 */
export function resize(
  picture: Picture,
  part: Box,
  [width, height]: [number, number],
  mode: PadMode,
  resample: number,
): Uint8Array {
  const { channels } = picture;
  // Padding repeats what of the part is within the picture.
  const [left, top] = [Math.max(0, part[0]), Math.max(0, part[1])];
  const [right, bottom] = [Math.min(part[2], picture.width), Math.min(part[3], picture.height)];
  const columns = right - left;
  const rows = bottom - top;
  const across = taps(columns, [part[0] - left, part[2] - left], width, mode, resample);
  const down = taps(rows, [part[1] - top, part[3] - top], height, mode, resample);
  const result = new Uint8Array(width * height * channels);
  const [narrower, lower] = [part[2] - part[0] - width, part[3] - part[1] - height];
  // Pillow 13 begins with the columns where that saves more, see its pull request 9549.
  if (lower > Math.max(0, 2 * narrower)) {
    const short = new Uint8Array(columns * height * channels);
    for (let x = 0; x < columns; x += STRIP) {
      const end = Math.min(x + STRIP, columns);
      const strip = picture.read([left + x, top, left + end, bottom]);
      const target = short.subarray(x * channels);
      resampleColumns(down, strip, (end - x) * channels, target, columns * channels);
    }
    resampleRows(across, short, columns * channels, channels, result);
    return result;
  }
  const narrow = new Uint8Array(width * rows * channels);
  for (let y = 0; y < rows; y += STRIP) {
    const strip = picture.read([left, top + y, right, top + Math.min(y + STRIP, rows)]);
    const target = narrow.subarray(y * width * channels);
    resampleRows(across, strip, columns * channels, channels, target);
  }
  resampleColumns(down, narrow, width * channels, result, width * channels);
  return result;
}
