// Takes files that are chosen or dropped in a box to the machine of the kernel, piece by piece.
//
// The box is [data-kit-upload=MARK], drawn by a widget at any time and more than once: events are
// therefore heard at the document. The pieces go through Jupyter's contents API into a folder that
// the kernel watches, on Colab to a function of the kernel. See staging.py for the files' names.
((options) => {
  const { mark, folder, callback, most } = options;
  const known = (window.loraKitUploads = window.loraKitUploads || {});
  if (known[mark] || !(folder || callback)) return;
  const colab = window.google && window.google.colab && window.google.colab.kernel;
  const config = document.getElementById("jupyter-config-data");
  if (callback ? !(colab && colab.accessAllowed) : !config) return;
  known[mark] = true;
  const GONE = "the kernel does not wait for it any more: run the cell again";
  const server = callback ? toColab() : toJupyter(JSON.parse(config.textContent));
  const state = { abort: null, batch: "", value: 0, text: "", isOver: false };
  const style = document.createElement("style");
  style.textContent = `[data-kit-upload="${mark}"] .kit-up-dead { display: none; }
    [data-kit-upload="${mark}"] .kit-up-live { display: flex !important; }`;
  document.head.append(style);

  function toJupyter(page) {
    const address = (name) =>
      page.baseUrl + "api/contents/" + `${folder}/${name}`.split("/").map(encodeURIComponent).join("/");
    const cookie = (document.cookie.match(/(?:^|; )_xsrf=([^;]*)/) || [])[1];
    const ask = async (method, url, body, more) => {
      const headers = { "Content-Type": "application/json" };
      if (cookie) headers["X-XSRFToken"] = cookie;
      if (page.token) headers.Authorization = `token ${page.token}`;
      const answer = await fetch(url, {
        method, headers, credentials: "same-origin", body: body && JSON.stringify(body), ...more,
      });
      if (answer.ok || answer.status === 404) return answer;
      const told = await answer.text();
      const isFull = /No space left|Errno 28|quota/i.test(told);
      const isGone = /No such file|Errno 2\b/i.test(told);
      const why = isFull ? "the disk is full" : isGone ? GONE : `the server answers ${answer.status}`;
      throw Object.assign(new Error(why), { isFinal: isFull || isGone || answer.status < 500 });
    };
    const put = async (name, body, more) => {
      const answer = await ask("PUT", address(name), { type: "file", ...body }, more);
      if (answer.status === 404) throw Object.assign(new Error(GONE), { isFinal: true });
    };
    return {
      piece: 1024 * 1024, // what JupyterLab's own upload sends, so that every proxy lets it pass
      async write(name, at, blob, signal) {
        const content = await asBase64(blob);
        await put(name, { format: "base64", chunk: at ? 2 : 1, content }, { signal });
        return at + blob.size;
      },
      async size(name, signal) {
        const answer = await ask("GET", `${address(name)}?content=0`, undefined, { signal });
        return answer.status === 404 ? 0 : (await answer.json()).size;
      },
      // keepalive: it is sent although the page goes.
      note: (name, text) => put(name, { format: "text", content: text }, { keepalive: text.length < 60000 }),
    };
  }

  function toColab() {
    const call = async (name, at, blob) => {
      const content = await asBase64(blob);
      const late = setTimeout(() => tell("The kernel is busy: the upload goes on when it answers."), 8000);
      const answer = await colab.invokeFunction(callback, [name, at, content], {});
      clearTimeout(late);
      const told = answer.data["application/json"];
      if (told.error) throw Object.assign(new Error(told.error), { isFinal: true });
      return told.size;
    };
    return {
      piece: 100 * 1024, // as Colab's own upload
      write: call,
      size: async () => 0,
      note: (name, text) => call(name, 0, new Blob([text])),
    };
  }

  function asBase64(blob) {
    return new Promise((good, bad) => {
      const reader = new FileReader();
      reader.onload = () => good(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.onerror = () => bad(Object.assign(new Error("it cannot be read any more"), { isFinal: true }));
      reader.readAsDataURL(blob);
    });
  }

  const boxOf = (event) => event.target.closest && event.target.closest(`[data-kit-upload="${mark}"]`);

  function draw() {
    for (const box of document.querySelectorAll(`[data-kit-upload="${mark}"]`)) {
      box.classList.toggle("is-busy", !!state.abort);
      box.querySelector("progress").value = state.value;
      box.querySelector("input[type=file]").disabled = !!state.abort;
      const line = box.querySelector("[role=status]");
      if (line.textContent !== state.text) line.textContent = state.text;
    }
  }

  function tell(text) {
    state.text = text;
    draw();
  }

  const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

  async function one(name, file, signal, sent) {
    let at = 0, isThere = false, failures = 0;
    while (at < file.size || !isThere) {
      if (signal.aborted) throw new Error("cancelled");
      try {
        at = await server.write(name, at, file.slice(at, at + server.piece), signal);
        isThere = true;
        failures = 0;
        sent(at);
      } catch (error) {
        if (signal.aborted || error.isFinal || ++failures > 5) throw error;
        await new Promise((done) => setTimeout(done, 300 * 2 ** failures));
        at = await server.size(name, signal).catch(() => 0); // a piece may have come, its answer not
        isThere = at > 0;
        if (at > file.size) at = 0;
      }
    }
  }

  async function surely(ask) {
    for (let failures = 0; ; ) {
      try {
        return await ask();
      } catch (error) {
        if (error.isFinal || ++failures > 3) throw error;
        await new Promise((done) => setTimeout(done, 300 * 2 ** failures));
      }
    }
  }

  async function take(chosen) {
    const files = chosen.filter(({ name }) => !name.split("/").some((part) => part.startsWith(".")));
    if (!files.length) return;
    if (state.abort) return tell("Wait until this upload is over, or cancel it.");
    if (files.length > most) {
      return tell(`${files.length} files are too many: at most ${most} are taken at once.`);
    }
    const { signal } = (state.abort = new AbortController());
    const batch = (state.batch = Date.now().toString(36) + Math.random().toString(36).slice(2, 6));
    const total = files.reduce((sum, { file }) => sum + file.size, 0), began = Date.now();
    const rate = (bytes) => megabytes(bytes / Math.max(0.001, (Date.now() - began) / 1000));
    let before = 0, current = "";
    state.value = 0;
    tell("Starts ...");
    try {
      for (const [number, { file, name }] of files.entries()) {
        current = name;
        await one(`${batch}-${number}`, file, signal, (bytes) => {
          state.value = total ? (before + bytes) / total : 1;
          tell(`${number + 1} of ${files.length} files, ${megabytes(before + bytes)} of ` +
            `${megabytes(total)} MB, ${rate(before + bytes)} MB/s`);
        });
        before += file.size;
      }
      const list = files.map(({ file, name }) => ({ name, size: file.size }));
      if (signal.aborted) throw new Error("cancelled");
      await surely(() => server.note(`${batch}.done`, JSON.stringify(list)));
      const count = files.length === 1 ? "1 file" : `${files.length} files`;
      state.text = `${count}, ${megabytes(total)} MB: sent at ${rate(total)} MB/s.`;
    } catch (error) {
      await server.note(`${batch}.cut`, "").catch(() => 0);
      state.text = signal.aborted
        ? "Cancelled: nothing was taken over."
        : `The upload broke off at ${current} (${error.message}). Nothing was taken over: choose the files again.`;
    }
    state.abort = null;
    draw();
  }

  async function inside(entry, path) {
    if (entry.isFile) {
      const file = await new Promise((good, bad) => entry.file(good, bad));
      return [{ file, name: path + file.name }];
    }
    const reader = entry.createReader(), found = [];
    for (;;) {
      const some = await new Promise((good, bad) => reader.readEntries(good, bad)); // 100 at a time
      if (!some.length) return found;
      for (const each of some) found.push(...(await inside(each, `${path}${entry.name}/`)));
    }
  }

  async function dropped(data) {
    const items = [...data.items].filter((item) => item.kind === "file");
    // Asked at once: after the first wait the list of what was dropped is empty.
    const entries = items.map((item) => [item.webkitGetAsEntry && item.webkitGetAsEntry(), item.getAsFile()]);
    const found = [];
    for (const [entry, file] of entries) {
      if (entry && entry.isDirectory) found.push(...(await inside(entry, "")));
      else if (file) found.push({ file, name: file.name });
    }
    return take(found);
  }

  document.addEventListener("change", (event) => {
    if (!boxOf(event) || event.target.type !== "file") return;
    const files = [...event.target.files].map((file) => ({ file, name: file.name }));
    event.target.value = ""; // so that the same file can be chosen again
    take(files);
  }, true);
  document.addEventListener("click", (event) => {
    if (boxOf(event) && event.target.closest(".kit-up-cancel") && state.abort) state.abort.abort();
  }, true);
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      const box = boxOf(event);
      if (!box || !event.dataTransfer || ![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      event.stopPropagation();
      box.classList.toggle("is-over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") dropped(event.dataTransfer).catch((error) => tell(`${error.message || error}`));
    }, true);
  }
  window.addEventListener("pagehide", () => {
    if (state.abort) server.note(`${state.batch}.cut`, "").catch(() => 0);
  });
})(OPTIONS);
