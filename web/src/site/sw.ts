// The service worker: it keeps the site's files, so that the page opens without a connection. Each
// version takes its files beside those of the last, and removes those when it takes over, which it
// does when no page of the last is open, or when a visitor asks for it.

import { sha256 } from './sha256';

declare const self: ServiceWorkerGlobalScope;

// icon_classifier/site/build.py fills these in: what to take, and what to keep once it was taken.
const VERSION = '__VERSION__';
const { shell, later } = '__FILES__' as unknown as { shell: string[]; later: string[] };

// An origin may hold other sites. The page's worker puts the model into the same cache.
const { scope } = self.registration;
const CACHE = `icon-classifier ${scope}`;
const HASH = /-([0-9a-f]{8})\./;

/** Where a file lies in the cache: one without a hash in its name has an entry for each version. */
const entry = (name: string): string =>
  new URL(HASH.test(name) ? name : `${name}?${VERSION}`, scope).href;

/** Take a file, unless it is there. */
async function take(cache: Cache, name: string): Promise<void> {
  if (await cache.match(entry(name))) return;
  const hash = HASH.exec(name)?.[1];
  const response = await fetch(new URL(name, scope), { cache: hash ? 'default' : 'no-cache' });
  const data = await response.arrayBuffer();
  const isPage = name === './';
  // A host may answer with files of two versions while one takes the place of the other.
  if (
    !response.ok ||
    (hash && !(await sha256(data)).startsWith(hash)) ||
    (isPage && !new TextDecoder().decode(data).includes(VERSION))
  ) {
    throw new Error(`expected ${name} of version ${VERSION}, got another answer`);
  }
  // A new response: that of a redirection would be refused as a page.
  await cache.put(entry(name), new Response(data, response));
}

async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const name of shell) await take(cache, name);
}

async function activate(): Promise<void> {
  const cache = await caches.open(CACHE);
  const kept = new Set([...shell, ...later].map(entry));
  for (const request of await cache.keys()) {
    if (!kept.has(request.url)) await cache.delete(request);
  }
  await self.clients.claim();
}

async function answer(request: Request): Promise<Response> {
  const [address] = request.url.split(/[?#]/);
  const name = address.slice(scope.length).replace(/^(index\.html)?$/, './');
  const cache = await caches.open(CACHE);
  return (await cache.match(entry(name))) ?? fetch(request);
}

self.addEventListener('install', (event) => event.waitUntil(install()));
self.addEventListener('activate', (event) => event.waitUntil(activate()));
self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method === 'GET' && request.url.startsWith(scope)) {
    event.respondWith(answer(request));
  }
});
self.addEventListener('message', ({ data }) => {
  if (data === 'use') void self.skipWaiting();
});
