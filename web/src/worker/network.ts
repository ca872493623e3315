// The network, run by ONNX Runtime Web; the same as icon_classifier/model/session.py.

import * as ort from 'onnxruntime-web/wasm';
import type { Heat, ModelInfo } from '../site/messages';
import { Failure, isMemory } from './problem';

export interface Pixels {
  /** H * W * K bytes. */
  pixels: Uint8Array;
  width: number;
  height: number;
}

export interface Prediction {
  ranking: [number, number][];
  known: boolean;
  score: number;
  /** The cells of a heat map for the most probable class. */
  cells: Omit<Heat, 'box'> | null;
}

export class Network {
  private constructor(
    private readonly session: ort.InferenceSession,
    private readonly info: ModelInfo,
  ) {}

  /** Start the runtime and read the model. */
  static async open(runtime: Uint8Array, model: Uint8Array, info: ModelInfo): Promise<Network> {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = runtime.buffer as ArrayBuffer;
    try {
      const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
      return new Network(session, info);
    } catch (error) {
      // ONNX Runtime's words where it could not even start.
      const reason = /no available backend/.test(String(error)) ? 'wasm' : 'damaged';
      throw new Failure(isMemory(error) ? 'memory' : reason, { cause: error });
    } finally {
      ort.env.wasm.wasmBinary = undefined; // 14 MB
    }
  }

  /** Run once on an empty picture, since browsers compile what runs. */
  async warmUp(): Promise<void> {
    const { mode, transforms } = this.info;
    const [width, height] = transforms.at(-1)!.size;
    const channels = mode === 'L' ? 1 : 3;
    await this.predict({ pixels: new Uint8Array(width * height * channels), width, height }, true);
  }

  async predict(photo: Pixels, explain: boolean): Promise<Prediction> {
    const { evidence: hasEvidence, temperature, threshold } = this.info;
    const names = ['logits', 'score', ...(explain && hasEvidence ? ['evidence'] : [])];
    const outputs = await this.session.run({ image: this.input(photo) }, names);
    const logits = outputs['logits']!.data as Float32Array;
    const score = (outputs['score']!.data as Float32Array)[0]!;
    const ranking = softmax(Float64Array.from(logits, (logit) => logit / temperature));
    return {
      ranking,
      known: threshold === null || score >= threshold,
      score,
      cells: outputs['evidence'] ? relevance(outputs['evidence'], ranking[0]![0]) : null,
    };
  }

  /** Normalise pixels: float32, (1, K, H, W). */
  private input({ pixels, width, height }: Pixels): ort.Tensor {
    const { mean, std } = this.info;
    const size = width * height;
    const channels = pixels.length / size;
    const data = new Float32Array(mean.length * size);
    for (let channel = 0; channel < mean.length; channel++) {
      const values = normalised(mean[channel]!, std[channel]!);
      let from = channel % channels;
      for (let i = channel * size; i < (channel + 1) * size; i++, from += channels) {
        data[i] = values[pixels[from]!]!;
      }
    }
    return new ort.Tensor('float32', data, [1, mean.length, height, width]);
  }
}

/** The 256 values of a channel, computed in single precision. */
function normalised(mean: number, std: number): Float32Array {
  const f = Math.fround;
  return Float32Array.from({ length: 256 }, (_, i) => f(f(f(i) / f(255)) - f(mean)) / f(std));
}

/** Each class and its probability, the most probable first. */
function softmax(logits: Float64Array): [number, number][] {
  const highest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const sum = powers.reduce((all, power) => all + power, 0);
  return Array.from(powers, (power, i): [number, number] => [i, power / sum]).sort(
    ([, p], [, q]) => q - p,
  );
}

/** Scale the evidence for one class to 0 to 255, in single precision as heatmap.py does. */
function relevance({ data, dims }: ort.Tensor, index: number): Omit<Heat, 'box'> {
  const [height, width] = [dims[2]!, dims[3]!];
  const size = width * height;
  const values = (data as Float32Array).subarray(index * size, (index + 1) * size);
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const f = Math.fround;
  const scaled = (value: number): number => rint(f(f(255 * f(value - low)) / f(high - low)));
  const cells = new Uint8Array(size);
  if (high > low) values.forEach((value, i) => (cells[i] = scaled(value)));
  return { cells, width, height };
}

/** Round as numpy does: halves to the even number. */
function rint(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}
