/** What a function calls back with, as a promise. */
export function settled<Value>(
  start: (done: (error: Error | null | undefined, value: Value) => void) => unknown,
): Promise<Value> {
  return new Promise<Value>((resolve, reject) => {
    start((error, value) => (error ? reject(error) : resolve(value)));
  });
}
