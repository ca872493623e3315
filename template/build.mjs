// Build the page's script and style sheet into the template, with names that change with their
// contents, packed for the way, and with the licences of what they contain.

import { build } from 'esbuild';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const here = dirname(fileURLToPath(import.meta.url));
const template = join(here, 'voila', 'templates', 'slim');
const target = join(template, 'static', 'build');
const shim = (name) => join(here, 'src', 'shims', name);

const result = await build({
  absWorkingDir: here,
  entryPoints: { page: 'src/page.ts', style: 'src/style.css' },
  entryNames: '[name]-[hash]',
  outdir: target,
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['chrome99', 'firefox108', 'safari16.4'],
  legalComments: 'none',
  metafile: true,
  write: false,
  define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
  alias: {
    jquery: shim('jquery.ts'),
    'sanitize-html': shim('sanitize-html.ts'),
    nouislider: shim('nouislider.ts'),
    '@lumino/dragdrop': shim('dragdrop.ts'),
  },
  plugins: [
    {
      // An alias would catch the shim's own imports of the package's sources too.
      name: 'lumino-widgets',
      setup({ onResolve }) {
        onResolve({ filter: /^@lumino\/widgets$/ }, () => ({ path: shim('lumino-widgets.ts') }));
      },
    },
  ],
});

/** The packages that the bundle contains: their folders under node_modules. */
const packages = new Set(
  Object.values(result.metafile.outputs)
    .flatMap(({ inputs }) => Object.entries(inputs))
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([path]) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)/.exec(path)?.[1])
    .filter(Boolean),
);

async function licenceOf(folder) {
  const { name, version, license } = JSON.parse(await readFile(join(here, folder, 'package.json')));
  const files = await readdir(join(here, folder));
  const file = files.find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? await readFile(join(here, folder, file), 'utf8') : '';
  return `${name} ${version} (${license})\n\n${text.trim()}\n`;
}

const licences = await Promise.all([...packages].sort().map(licenceOf));
await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
await writeFile(join(target, 'LICENSES.txt'), licences.join(`\n${'-'.repeat(78)}\n\n`));

const names = {};
for (const { path, contents } of result.outputFiles) {
  const name = basename(path);
  names[name.split('-')[0]] = name;
  const gzip = gzipSync(contents, { level: 9 });
  const brotli = brotliCompressSync(contents, {
    params: { [constants.BROTLI_PARAM_SIZE_HINT]: contents.length },
  });
  await writeFile(resolve(target, name), contents);
  await writeFile(resolve(target, `${name}.gz`), gzip);
  await writeFile(resolve(target, `${name}.br`), brotli);
  console.log(`${name}: ${contents.length} bytes, ${gzip.length} gzip, ${brotli.length} brotli`);
}

// Last, and at once: the template counts as built when this file is there.
const assets = join(target, 'assets.html.j2');
await writeFile(
  `${assets}.tmp`,
  `{%- set script = "static/build/${names.page}" -%}\n{%- set style = "static/build/${names.style}" -%}\n`,
);
await rename(`${assets}.tmp`, assets);
