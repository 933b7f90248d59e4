/** A secret that prints as nothing readable and is opened only where it is used (`crypto/redacted.ts` makes one). */
export interface Hidden {
  reveal(): string;
}
