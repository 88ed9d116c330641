// Searching without a server: browsers refuse workers from files, so a hidden frame does a worker's work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inner = this.frame.contentWindow
      inner.importScripts = (...urls) => urls.reduce(
        (before, src) => before.then(() => this.load(src)), Promise.resolve())
      // The worker says something: it goes to the page, not to the frame itself.
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.load(url).then(() => {
        this.ready = true
        this.waiting.forEach(data => this.postMessage(data))
      })
    }

    load(src) {
      const inner = this.frame.contentDocument
      return new Promise((resolve, reject) => {
        const script = inner.createElement("script")
        Object.assign(script, { src: new URL(src, this.url || document.baseURI).href, onload: resolve, onerror: reject })
        inner.body.append(script)
      })
    }

    postMessage(data) {
      if (!this.ready) this.waiting.push(data)
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }

    terminate() { this.frame.remove() }
  }
}
