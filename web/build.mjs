// Build the scripts of the page and of the static site into the Python package, with the licences
// of the bundled packages. The page's have a hash in their names, and gzip and brotli versions; the
// site's have plain names, because `icon-classifier site` adds the hashes.
//
//   node build.mjs            write the files
//   node build.mjs --check    fail if the committed files differ from what would be written

import { build } from 'esbuild';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from 'node:zlib';

const here = dirname(fileURLToPath(import.meta.url));
const template = join(here, '..', 'icon_classifier', 'server', 'slim');
const target = join(template, 'static');
const site = join(here, '..', 'icon_classifier', 'site', 'built');
const shim = (name) => join(here, 'src', 'shims', name);

// Modules of WebAssembly that the site loads: gzip, whatever the host sends compressed. Their names
// do not end in .gz, since some hosts then let the browser unpack them, and the hash would differ.
const BINARIES = {
  'ort.bin': 'node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm',
  'heif.bin': 'node_modules/libheif-js/libheif-wasm/libheif.wasm',
};

// Where a package's own file of its licence is missing, or is not all of it.
const LICENCES = {
  'onnxruntime-web': 'licences/onnxruntime-web.txt',
  'libheif-js': 'node_modules/libheif-js/libheif-wasm/LICENSE',
};

const OPTIONS = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['chrome99', 'firefox108', 'safari16.4'],
  legalComments: 'none',
  // ES modules also of packages with a `browser` build, for they leave unused code out.
  mainFields: ['module', 'browser', 'main'],
  metafile: true,
  write: false,
};

async function bundlePage() {
  return build({
    ...OPTIONS,
    entryPoints: { page: 'src/page.ts', style: 'src/style.css' },
    entryNames: '[name]-[hash]',
    outdir: target,
    define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
    alias: {
      jquery: shim('jquery.ts'),
      'sanitize-html': shim('sanitize-html.ts'),
      nouislider: shim('nouislider.ts'),
      '@lumino/dragdrop': shim('dragdrop.ts'),
      // Backbone needs this one anyway; it tells 0 from -0, and ignores the offset of a DataView.
      'lodash/isEqual': 'underscore/modules/isEqual.js',
    },
    plugins: [
      {
        // An alias would also match the shims' own imports from these packages.
        name: 'parts',
        setup({ onResolve }) {
          onResolve({ filter: /^@lumino\/widgets$/ }, () => ({ path: shim('lumino-widgets.ts') }));
          onResolve({ filter: /^underscore$/ }, () => ({ path: shim('underscore.js') }));
        },
      },
    ],
  });
}

async function bundleSite() {
  return build({
    ...OPTIONS,
    entryPoints: {
      site: 'src/site/site.ts',
      sw: 'src/site/sw.ts',
      worker: 'src/worker/worker.ts',
      heif: 'src/worker/libheif.js',
    },
    outdir: site,
    // What libheif would need in Node.
    external: ['fs', 'path'],
  });
}

/** The licences of the packages that a bundle contains, and of other files of packages. */
async function licences({ outputs }, others = []) {
  const bundled = Object.values(outputs)
    .flatMap(({ inputs }) => Object.entries(inputs))
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([path]) => path);
  const folders = new Set(
    [...bundled, ...others]
      .map((path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)/.exec(path)?.[1])
      .filter(Boolean),
  );
  const texts = [...folders].sort().map(async (folder) => {
    const about = JSON.parse(await readFile(join(here, folder, 'package.json'), 'utf8'));
    const names = await readdir(join(here, folder));
    const name = names.find((each) => /^licen[cs]e/i.test(each));
    const path = LICENCES[about.name] ?? (name && join(folder, name));
    const text = path ? await readFile(join(here, path), 'utf8') : '';
    // Whoever passes a library on under this licence says where its source is.
    const source = about.license.startsWith('LGPL') ? `Source: ${about.repository.url}\n\n` : '';
    return `${about.name} ${about.version} (${about.license})\n\n${source}${text.trim()}\n`;
  });
  return (await Promise.all(texts)).join(`\n${'-'.repeat(78)}\n\n`);
}

/** The files of the page: their paths and contents. */
async function pageFiles() {
  const { outputFiles, metafile } = await bundlePage();
  const files = new Map();
  const names = {};
  for (const output of outputFiles) {
    const data = Buffer.from(output.contents);
    const name = basename(output.path);
    names[name.split('-')[0]] = name;
    const params = { [constants.BROTLI_PARAM_SIZE_HINT]: data.length };
    files.set(join(target, name), data);
    files.set(join(target, `${name}.gz`), gzipSync(data, { level: 9 }));
    files.set(join(target, `${name}.br`), brotliCompressSync(data, { params }));
  }
  files.set(join(target, 'LICENSES.txt'), Buffer.from(await licences(metafile)));
  const assets = `{%- set script = "${names.page}" -%}\n{%- set style = "${names.style}" -%}\n`;
  files.set(join(template, 'assets.html.j2'), Buffer.from(assets));
  return files;
}

/** The files of the static site. */
async function siteFiles() {
  const { outputFiles, metafile } = await bundleSite();
  const files = new Map(outputFiles.map(({ path, contents }) => [path, Buffer.from(contents)]));
  for (const [name, path] of Object.entries(BINARIES)) {
    files.set(join(site, name), gzipSync(await readFile(join(here, path)), { level: 9 }));
  }
  const texts = await licences(metafile, Object.values(BINARIES));
  return files.set(join(site, 'LICENSES.txt'), Buffer.from(texts));
}

/** The bytes that count: compressed ones may differ between versions of Node and processors. */
function decompressed(path, data) {
  if (/\.(gz|bin)$/.test(path)) return gunzipSync(data);
  return path.endsWith('.br') ? brotliDecompressSync(data) : data;
}

async function differences(files) {
  const extra = [];
  for (const folder of [target, site]) {
    const present = await readdir(folder).catch(() => []);
    extra.push(...present.map((name) => join(folder, name)).filter((path) => !files.has(path)));
  }
  const changed = [];
  for (const [path, data] of files) {
    const committed = await readFile(path).catch(() => undefined);
    if (!committed || !decompressed(path, committed).equals(decompressed(path, data))) {
      changed.push(path);
    }
  }
  return [...extra, ...changed];
}

const files = new Map([...(await pageFiles()), ...(await siteFiles())]);
if (process.argv.includes('--check')) {
  const found = await differences(files);
  for (const path of found) console.error(`differs from a rebuild: ${path}`);
  if (found.length) {
    console.error('expected the bundle that web/ builds, got another one: run npm run build');
    process.exitCode = 1;
  }
} else {
  for (const folder of [target, site]) {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
  }
  for (const [path, data] of files) {
    await writeFile(path, data);
    console.log(`${basename(path)}: ${data.length} bytes`);
  }
}
