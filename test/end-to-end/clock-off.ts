/** Loaded into the agent's process before anything else (`--import`): its clock is off by so many milliseconds. */
const offMs = Number(process.env.FAILKIT_TEST_CLOCK_OFF_MS);
const RealDate = Date;

globalThis.Date = class extends RealDate {
  constructor(given: number | string | Date = RealDate.now() + offMs) {
    super(given);
  }
  static override now(): number {
    return RealDate.now() + offMs;
  }
} as DateConstructor;
