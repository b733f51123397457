// What browsers have had since 2022 and 2023, for compilers that are older than that.
interface Array<T> {
  toSorted(compare?: (a: T, b: T) => number): T[];
  findLast(found: (each: T) => unknown): T | undefined;
}
interface Float32Array {
  toSorted(compare?: (a: number, b: number) => number): Float32Array;
}
