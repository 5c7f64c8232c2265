import { defineConfig, mergeConfig } from 'vitest/config';
import base from './vitest.config.ts';

/** The tests against QEMU and Linux; one file at a time, since each peer keeps a CPU busy. */
export default mergeConfig(
  { ...base, test: { ...base.test, include: [], exclude: [] } },
  defineConfig({
    test: {
      // The suite on our own device as well: it is half of each comparison.
      include: ['test/peers/**/*.test.ts', 'test/conformance/**/*.test.ts'],
      globalSetup: ['test/conformance/table.ts'],
      testTimeout: 120_000,
      hookTimeout: 120_000,
      fileParallelism: false,
    },
  }),
);
