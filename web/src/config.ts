// What the server wrote into the page for this script.

interface PageConfig {
  baseUrl: string;
  kernelId: string;
  /** Bytes that a message to the kernel may have. */
  maxMessage: number;
  /** Every text that a visitor reads: PAGE_TEXTS of icon_classifier/page/texts.py. */
  texts: Record<string, string>;
}

export const { baseUrl, kernelId, maxMessage, texts }: PageConfig = JSON.parse(
  (document.getElementById('page-config') as HTMLElement).textContent ?? '',
);
