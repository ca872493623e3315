// Comma-separated values by the rules of icon_classifier/system/texts.py: a name of a file that a
// stranger chose is neither a formula nor a second line.

const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;
const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/;
const NAMED: Record<string, string> = { '\t': '\\t', '\n': '\\n', '\r': '\\r' };

/** Escape a character as Python's unicode_escape does. */
function escape(character: string): string {
  const code = character.charCodeAt(0);
  const digits = code.toString(16);
  return NAMED[character] ?? (code < 256 ? `\\x${digits.padStart(2, '0')}` : `\\u${digits}`);
}

function cell(text: string): string {
  const shown = text.replace(CONTROL, escape);
  const safe = FORMULA.test(shown) ? `'${shown}` : shown;
  // Semicolons divide cells in countries with a decimal comma.
  return /[",;]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export const csv = (rows: string[][]): string =>
  rows.map((row) => `${row.map(cell).join()}\r\n`).join('');
