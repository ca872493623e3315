// What the page and its worker say to each other.

export interface SiteFile {
  /** Its address, relative to the page's. */
  name: string;
  bytes: number;
  /** SHA-256 as hexadecimal digits. */
  sha256: string;
}

export type PadMode = 'zeros' | 'border' | 'reflection';

export type Step =
  | {
      op: 'resize';
      size: [number, number];
      method: 'crop' | 'pad' | 'squish';
      pad_mode: PadMode;
      resample: number;
    }
  | { op: 'crop_pad'; size: [number, number]; pad_mode: PadMode };

/** What the metadata of export.onnx say of its use. */
export interface ModelInfo {
  labels: string[];
  mode: 'RGB' | 'L';
  transforms: Step[];
  mean: number[];
  std: number[];
  temperature: number;
  threshold: number | null;
  evidence: boolean;
}

/** What a photo may cost: those of icon_classifier/images.py, and that of its padding. */
export interface Limits {
  max_bytes: number;
  max_pixels: number;
  min_side: number;
  max_side: number;
  /** Width and height of a larger photo are halved first. */
  max_whole_pixels: number;
  max_padded_pixels: number;
}

export interface WorkerConfig {
  model: ModelInfo;
  limits: Limits;
  files: { model: SiteFile; runtime: SiteFile; heif: SiteFile & { script: string } };
}

/** A heat map; see icon_classifier/model/heatmap.py. */
export interface Heat {
  cells: Uint8Array;
  width: number;
  height: number;
  box: [number, number, number, number];
}

export type FailureReason = 'wasm' | 'memory' | 'missing' | 'damaged';

/** Why a photo has no answer: a key of the words in the page's config. */
export type ProblemReason =
  | 'empty'
  | 'unsupported'
  | 'heif'
  | 'damaged'
  | 'too_large'
  | 'too_small'
  | 'too_narrow'
  | 'too_many_bytes'
  | 'memory'
  | 'unexpected';

export interface Answer {
  kind: 'answer';
  id: number;
  /** Each class, by its place among the labels, and its probability; the most probable first. */
  ranking: [number, number][];
  known: boolean;
  score: number;
  heat: Heat | null;
  /** JPEGs, where they were asked for. */
  preview: Uint8Array | null;
  thumbnail: Uint8Array | null;
}

export type ToWorker =
  | { kind: 'open'; config: WorkerConfig; base: string }
  | {
      kind: 'predict';
      id: number;
      source: Blob | ImageBitmap;
      explain: boolean;
      preview: boolean;
    };

export type FromWorker =
  | { kind: 'progress'; loaded: number; total: number }
  | { kind: 'ready' }
  | { kind: 'failed'; reason: FailureReason }
  | Answer
  | { kind: 'problem'; id: number; reason: ProblemReason };
