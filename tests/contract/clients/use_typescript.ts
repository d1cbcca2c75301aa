// Uses the types that openapi-typescript makes of the description, with openapi-fetch: puts a group, makes a job, lists it, reads its attempts,
// and provokes a typed problem. Arguments: the server's URL, and that of a receiver.
import { strict as assert } from "node:assert";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Job = components["schemas"]["JobView"];

// How long a job may take to be delivered.
const LONGEST_MS = 20_000;

const [server, receiver] = process.argv.slice(2);
assert(server && receiver);
const client = createClient<paths>({ baseUrl: server });
const group = "generated-typescript";

const put = await client.PUT("/v1/groups/{group}", { params: { path: { group } }, body: {} });
assert.equal(put.error, undefined);
assert.equal(put.data?.name, group);

const made = await client.POST("/v1/groups/{group}/jobs", {
  params: { path: { group } },
  body: {
    url: receiver,
    payload: { a: [1, "b", null] },
    run_at: "+0s",
    headers: [{ name: "X-A", value: "1" }],
  },
});
assert.equal(made.error, undefined);
assert(made.data);
const id: string = made.data.id;

const end = Date.now() + LONGEST_MS;
let job: Job = made.data;
while (job.state === "scheduled" || job.state === "running") {
  assert(Date.now() < end, JSON.stringify(job));
  const found = await client.GET("/v1/jobs/{id}", { params: { path: { id } } });
  assert(found.data, JSON.stringify(found.error));
  job = found.data;
}
assert.equal(job.state, "succeeded");

const page = await client.GET("/v1/groups/{group}/jobs", { params: { path: { group }, query: { state: "succeeded", limit: 10 } } });
assert.deepEqual(page.data?.items.map((item) => item.id), [id]);
const attempts = await client.GET("/v1/jobs/{id}/attempts", { params: { path: { id } } });
assert.deepEqual(attempts.data?.items.map((attempt) => attempt.status), [200]);

const refused = await client.POST("/v1/groups/{group}/jobs", { params: { path: { group } }, body: { url: "nonsense" } });
const problem: components["schemas"]["Problem"] | undefined = refused.error;
assert.equal(problem?.status, 422);
assert.equal(problem?.pointer, "/url");
assert.equal(problem?.type, "urn:carillon:problem:invalid");
