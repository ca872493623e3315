// WebP photos: they are turned here, since some browsers turn other formats only.

import { Problem } from './problem';

// Its chunks begin after "RIFF", a size and "WEBP".
const HEADER = 12;
const EXIF = 0x45584946; // "EXIF", the name of a chunk
const EXIF_HEADER = 0x45786966; // "Exif", with which some writers begin its content
const ORIENTATION = 0x0112;

/** The EXIF orientation of a WebP (CIPA DC-008), 1 where it says none. */
export function orientationOf(file: ArrayBuffer): number {
  const view = new DataView(file);
  try {
    for (let chunk = HEADER; ; ) {
      const length = view.getUint32(chunk + 4, true);
      if (view.getUint32(chunk) === EXIF) return readOrientation(new DataView(file, chunk + 8));
      chunk += 8 + length + (length % 2);
    }
  } catch {
    return 1; // a RangeError at the end of the file
  }
}

function readOrientation(view: DataView): number {
  const start = view.getUint32(0) === EXIF_HEADER ? 6 : 0;
  const isLittle = view.getUint16(start) === 0x4949;
  const entries = start + view.getUint32(start + 4, isLittle);
  const count = view.getUint16(entries, isLittle);
  for (let i = 0; i < count; i++) {
    const entry = entries + 2 + 12 * i;
    if (view.getUint16(entry, isLittle) === ORIENTATION) return view.getUint16(entry + 8, isLittle);
  }
  return 1;
}

/** Undo an orientation; any number but 2 to 8 turns nothing. */
export function upright(bitmap: ImageBitmap, orientation: number): ImageBitmap {
  const { width, height } = bitmap;
  const matrix = {
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  }[orientation];
  if (!matrix) return bitmap;
  const isOnSide = orientation > 4;
  const canvas = new OffscreenCanvas(isOnSide ? height : width, isOnSide ? width : height);
  const context = canvas.getContext('2d');
  if (!context) throw new Problem('memory');
  context.setTransform(new DOMMatrix(matrix));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}
