import { defineConfig } from 'vitest/config';

export default defineConfig({
  resolve: { conditions: ['ballast-source'] },
  ssr: { resolve: { conditions: ['ballast-source'] } },
  test: {
    include: ['test/**/*.test.ts'],
    // Real peers: `npm run test:peers`.
    exclude: ['test/peers/**'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    globalSetup: ['test/support/bundles.ts'],
    pool: 'forks',
    maxWorkers: 2,
  },
});
