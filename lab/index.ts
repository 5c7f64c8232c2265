/** The library: start the pair, drive it, and always clean up (`await using`). */
export type {
  HostStatus,
  LostPage,
  MigrateParams,
  MigrationReport,
  StrategyName,
} from '../protocol/control.ts';
export { BallastError } from '../shared/index.ts';
export { type LaunchOptions, launch } from './machine/launch.ts';
export type { FinishReport, Machine } from './machine/machine.ts';
export type { Plan } from './plan/plan.ts';
export type { Result, Run } from './runner/result.ts';
export { runScenario } from './runner/run.ts';
export { loadScenario } from './scenario/load.ts';
