// TensorBoard around our frame: its messages, and its theme.

const ANSWER_WITHIN = 1000; // ms; what stands around the frame may not be TensorBoard

/** The frame's end of TensorBoard's messages (its "experimental" guest interface). */
export function hostMessages(frame = window) {
  const { port1, port2 } = new MessageChannel();
  const waiting = new Map();
  const listeners = new Map();
  let count = 0;
  const post = (message) => port1.postMessage(JSON.stringify(message));
  port1.onmessage = ({ data }) => {
    const { type, id, payload, error, isReply } = JSON.parse(data);
    if (isReply) {
      waiting.get(id)?.(error ? null : payload);
      waiting.delete(id);
    } else {
      listeners.get(type)?.(payload);
      post({ type, id, payload: null, error: null, isReply: true });
    }
  };
  frame.parent.postMessage("experimental.bootstrap", "*", [port2]);
  return {
    listen: (type, listener) => listeners.set(type, listener),
    /** What the host answers, or null where nobody does. */
    ask(type, payload) {
      const id = count++;
      return new Promise((resolve) => {
        waiting.set(id, resolve);
        setTimeout(() => resolve(null), ANSWER_WITHIN);
        post({ type, id, payload, error: null, isReply: false });
      });
    },
  };
}

/** Tell whether TensorBoard is dark, now and whenever that changes; false in another site's frame. */
export function hostDark(told, frame = window) {
  told(false);
  try {
    const { body } = frame.parent.document;
    const take = () => told(body.classList.contains("dark-mode"));
    new MutationObserver(take).observe(body, { attributes: true, attributeFilter: ["class"] });
    take();
  } catch {
    // another site's document around us
  }
}
