// Stored: choices that the browser keeps between visits. Where it keeps none, as with blocked storage, they last until the
// page is left.

const kept = new Map();

export const stored = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return kept.get(name) ?? null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      kept.set(name, value);
    }
  },
};
