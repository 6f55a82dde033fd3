// A stream that is kept open while it is wanted.

const WAITS = [1, 2, 4, 8];

/**
 * Calls `read(signal)`, which reads until the stream ends, and again after a while when it breaks off. It has to
 * remember by itself how far it came. `wanted()` says whether there is still something to come.
 */
export class Feed {
  #read;
  #wanted;
  #refused;
  #stop = null;

  constructor(read, wanted, refused) {
    this.#read = read;
    this.#wanted = wanted;
    this.#refused = refused;
  }

  get open() {
    return this.#stop !== null;
  }

  start() {
    if (this.open) return;
    this.#stop = new AbortController();
    this.#run(this.#stop);
  }

  stop() {
    this.#stop?.abort();
    this.#stop = null;
  }

  async #run(stop) {
    let failures = 0;
    while (!stop.signal.aborted) {
      let wait = 0;
      try {
        await this.#read(stop.signal, () => { failures = 0; });
        if (!this.#wanted()) break;
        wait = 1;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error.status >= 400 && error.status < 500 && error.status !== 429) {
          this.#refused(error);
          break;
        }
        wait = Math.max(error.wait ?? 0, WAITS[Math.min(failures, WAITS.length - 1)]);
        failures += 1;
      }
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
    if (this.#stop === stop) this.#stop = null;
  }
}
