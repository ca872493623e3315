// What happens to a photo before the network sees it: what icon_classifier/model/pipeline.py does.

import type { Limits, ModelInfo, Step } from '../site/messages';
import { Problem } from './problem';
import { type Box, type Picture, pictureOf, resize } from './resize';

const NEAREST = 0;

/** The part of a picture that a step uses; beyond its edges where it is padded. */
function view(step: Step, width: number, height: number): Box {
  const [across, down] = step.size;
  if (step.op === 'crop_pad') {
    const [left, top] = [Math.floor((width - across) / 2), Math.floor((height - down) / 2)];
    return [left, top, left + across, top + down];
  }
  if (step.method === 'squish') return [0, 0, width, height];
  const choose = step.method === 'pad' ? Math.max : Math.min;
  const ratio = choose(width / across, height / down);
  // fastai rounds so: the crop's size is truncated, and its corner too, towards zero.
  const crop = [Math.trunc(ratio * across), Math.trunc(ratio * down)] as const;
  const left = Math.trunc(0.5 * (width - crop[0]));
  const top = Math.trunc(0.5 * (height - crop[1]));
  return [left, top, left + crop[0], top + crop[1]];
}

function apply(step: Step, picture: Picture, limits: Limits): Picture {
  const box = view(step, picture.width, picture.height);
  const isPadded =
    box[0] < 0 || box[1] < 0 || box[2] > picture.width || box[3] > picture.height;
  if (isPadded && (box[2] - box[0]) * (box[3] - box[1]) > limits.max_padded_pixels) {
    throw new Problem('too_narrow');
  }
  const resample = step.op === 'resize' ? step.resample : NEAREST;
  const values = resize(picture, box, step.size, step.pad_mode, resample);
  return pictureOf(values, ...step.size, picture.channels);
}

/** Pillow's grey of an RGB picture, ITU-R 601-2. */
function grey(picture: Picture): Picture {
  const read = (part: Box): Uint8Array => {
    const colours = picture.read(part);
    const values = new Uint8Array(colours.length / 3);
    for (let i = 0, from = 0; i < values.length; i++, from += 3) {
      const [r, g, b] = [colours[from]!, colours[from + 1]!, colours[from + 2]!];
      values[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    }
    return values;
  };
  return { ...picture, channels: 1, read };
}

/** Bring an RGB photo of any size to the pixels that the model takes: H * W * K bytes. */
export function transformed(photo: Picture, { mode, transforms }: ModelInfo, limits: Limits) {
  let picture = mode === 'L' ? grey(photo) : photo;
  for (const step of transforms) picture = apply(step, picture, limits);
  const { width, height } = picture;
  return { pixels: picture.read([0, 0, width, height]), width, height };
}

/** Left, top, width and height of the part that the model sees, as fractions of the photo's. */
export function seen(width: number, height: number, steps: Step[]): Box {
  // A point (x, y) between two steps is at (left + x * across, top + y * down) in the photo.
  let [left, top, across, down] = [0, 0, 1, 1];
  let [w, h] = [width, height];
  for (const step of steps) {
    const box = view(step, w, h);
    left += across * box[0];
    top += down * box[1];
    [w, h] = step.size;
    across *= (box[2] - box[0]) / w;
    down *= (box[3] - box[1]) / h;
  }
  return [left / width, top / height, (across * w) / width, (down * h) / height];
}
