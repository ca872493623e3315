// The service worker, which keeps the site's files on the device. Where there is none, the page
// works as well, but not without a connection.

let waiting: ServiceWorker | null = null;

/** Keep the files; `offer` is called when a newer version of the page is there. */
export async function keepFiles(offer: () => void): Promise<void> {
  const registration = await navigator.serviceWorker.register(new URL('sw.js', document.baseURI));
  const look = () => {
    waiting = registration.waiting;
    // The first version is not news.
    if (waiting && navigator.serviceWorker.controller) offer();
  };
  look();
  registration.addEventListener('updatefound', () =>
    registration.installing?.addEventListener('statechange', look),
  );
}

/** Go on with the newer version. */
export function useNewVersion(): void {
  navigator.serviceWorker.addEventListener('controllerchange', () => location.reload());
  waiting?.postMessage('use');
}
