// OpenWorkflow. The same commands as the other drivers; see protocol.py.
// BENCHMARK_MODULES names the folder whose node_modules it is installed in.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const place = JSON.parse(process.env.BENCHMARK_DATABASE);
const modules = path.join(process.env.BENCHMARK_MODULES, "node_modules", "openworkflow", "dist");
const load = (file) => import(pathToFileURL(path.join(modules, file)).href);
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

const [command, json] = process.argv.slice(2);
const args = JSON.parse(json);

const { OpenWorkflow } = await load("index.js");
const backend = await connect();
const engine = new OpenWorkflow({ backend });

async function connect() {
  if (place.path) {
    const { BackendSqlite } = await load("sqlite.js");
    return BackendSqlite.connect(place.path);
  }
  const { BackendPostgres } = await load("postgres.js");
  const url = `postgresql://${place.user}@${place.host}:${place.port}/${place.name}`;
  return BackendPostgres.connect(url, { runMigrations: command === "migrate" });
}

function note(event) {
  fs.appendFileSync(process.env.BENCHMARK_NOTES, JSON.stringify([event, Date.now() / 1000]) + "\n");
}

function isFirstTime() {
  try {
    fs.closeSync(fs.openSync(process.env.BENCHMARK_NOTES + ".failed", "wx"));
    return true;
  } catch {
    return false;
  }
}

async function nothings(step, size) {
  for (let number = 0; number < size; number++) {
    await step.run({ name: `step-${number}` }, () => ({ number, ok: true }));
  }
}

async function naps(step, size) {
  for (let number = 0; number < size; number++) {
    await step.run({ name: `step-${number}` }, async () => {
      await pause(0.05); // NAP of protocol.py
      return { number, ok: true };
    });
  }
}

async function steps({ input, step }) {
  await nothings(step, input.size);
  return { done: input.size };
}

const workflows = {
  steps: engine.defineWorkflow({ name: "steps" }, steps),
  async_steps: engine.defineWorkflow({ name: "async_steps" }, steps),
  async_naps: engine.defineWorkflow({ name: "async_naps" }, async ({ input, step }) => {
    await naps(step, input.size);
    return { done: input.size };
  }),
  sleeper: engine.defineWorkflow({ name: "sleeper" }, async ({ input, step }) => {
    await step.sleep("nap", `${input.size}s`);
    await nothings(step, 1);
    return { done: 1 };
  }),
  resume: engine.defineWorkflow({ name: "resume" }, async ({ input, step }) => {
    note("entered");
    await nothings(step, input.size);
    await step.run({ name: "last", retryPolicy: { initialInterval: "1ms" } }, () => {
      note("last step");
      if (isFirstTime()) throw new Error("once");
      return { ok: true };
    });
    return { done: input.size };
  }),
};

async function seconds(work) {
  const began = performance.now();
  await work();
  return { seconds: (performance.now() - began) / 1000 };
}

// There is no call for many: as many clients as a batch could have, each starting one after the other.
async function startConcurrently(workflow, size, count, clients) {
  let left = count;
  const client = async () => {
    while (left-- > 0) await workflows[workflow].run({ size });
  };
  await Promise.all(Array.from({ length: clients }, client));
}

const commands = {
  migrate: async () => null,
  start: async ({ workflow, size, count }) => startConcurrently(workflow, size, count, 10),
  start_singly: async ({ count }) => {
    await workflows.steps.run({ size: 1 });
    return seconds(() => startConcurrently("steps", 1, count, 1));
  },
  start_together: async ({ count }) => seconds(() => startConcurrently("steps", 1, count, 10)),
  start_slowly: async ({ count, gap }) => {
    const started = {};
    for (let number = 0; number < count; number++) {
      await pause(gap * (0.7 + 0.6 * Math.random()));
      const now = Date.now() / 1000;
      const handle = await workflows.steps.run({ size: 1 });
      started[handle.workflowRun.id] = now;
    }
    return { started };
  },
};

if (command === "work") {
  await engine.newWorker(args.concurrency ? { concurrency: args.concurrency } : undefined).start();
} else {
  console.log(JSON.stringify((await commands[command](args)) ?? null));
  await backend.stop();
  process.exit(0);
}
