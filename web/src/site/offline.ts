// The service worker, which keeps the site's files on the device. Where there is none, the page
// works as well, but not without a connection.

/** Keep the files; `offer` is called with what goes on with a newer version once it is there. */
export async function keepFiles(offer: (use: () => void) => void): Promise<void> {
  const { serviceWorker } = navigator;
  const registration = await serviceWorker.register(new URL('sw.js', document.baseURI));
  const use = () => {
    if (!registration.waiting) return location.reload(); // another tab uses it already
    serviceWorker.addEventListener('controllerchange', () => location.reload());
    registration.waiting.postMessage('use');
  };
  const look = () => {
    // The first version is not news.
    if (registration.waiting && serviceWorker.controller) offer(use);
  };
  const watch = () => registration.installing?.addEventListener('statechange', look);
  look();
  watch();
  registration.addEventListener('updatefound', watch);
  // The browser itself asks for a new version only when a page is opened.
  const ask = () => {
    if (document.visibilityState === 'visible') registration.update().catch(() => {});
  };
  document.addEventListener('visibilitychange', ask);
  addEventListener('online', ask);
}
