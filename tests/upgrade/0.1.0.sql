PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _sqlx_migrations VALUES(1,'initial','2026-11-30 17:25:52',1,X'6ed9713f8402d70cdaa6c0f646aef234304c8d4f537ecd8e1656d518f644c2a35b0b6ce03e057d2e7dc5b0b112b5cae3',1538848);
INSERT INTO _sqlx_migrations VALUES(2,'scheduling','2026-11-30 17:25:52',1,X'8148b60b7ea206938678b0305dae962c206604d5a1985a06e2ca5ef2ff1814f9a860dc0e7c6abebc6d13ad8ef68d707e',3167912);
CREATE TABLE entity (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    doc        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
INSERT INTO entity VALUES(1,0,'tenant','default',1,'{"defaults":{},"quota":{}}',1796059553068,1796059553068,NULL);
INSERT INTO entity VALUES(2,1,'token','cfaa5f8d0ab304ef',1,'{"hash":"003ae0454a834c2a5c80c0e784da0a13f57555696d50e7710fd708c5bd280fd1","name":"first administrator","operator":true,"role":"admin"}',1796059553086,1796059553086,NULL);
INSERT INTO entity VALUES(3,1,'key','k',1,'{"kind":"secret","sealed":{"ciphertext":"c3b87db7963c4a78eb2f8fa939cf3f9cac1ff3751f9f73efafc23fdf68","nonce":"82c51dd56880c92e40822aae71b7a57f728b4e8e1fe9f62c"}}',1796059553260,1796059553260,NULL);
INSERT INTO entity VALUES(4,0,'tenant','acme',1,'{"defaults":{},"quota":{"concurrency":5}}',1796059553278,1796059553278,NULL);
INSERT INTO entity VALUES(5,1,'token','faf00f9fa6b83d70',1,'{"hash":"f5ff9ade6b7dc60b7354b34e4522d8d904fa75948fd92bbc6909ff9cb1fd75b8","name":"producer","operator":false,"role":"producer"}',1796059553318,1796059553318,NULL);
INSERT INTO entity VALUES(6,1,'group','signed',1,'{"paused":false,"policy":{"retry":{"config":{"base":"1h","kind":"fixed","max_attempts":3},"plugin":"backoff"},"sign":{"keys":["k"],"plugin":"werkzeug-cookie"}},"rollout":{"active":{"by":"first administrator","made_at":1796059553340,"number":1,"plugins":[{"digest":"0e7a53f2e1149b0894673a1f1f6dd3124941946e3d09ebc684c64af62f6b8d63","plugin":"werkzeug-cookie@0.1.0","role":"sign"},{"digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","plugin":"expected-status@0.1.0","role":"judge"},{"digest":"2f1387dba3d832caa8908beb66746fbbf2753df87ed6abe688f24963dec9764a","plugin":"backoff@0.1.0","role":"retry"}],"policy":{"retry":{"config":{"base":"1h","kind":"fixed","max_attempts":3},"plugin":"backoff"},"sign":{"keys":["k"],"plugin":"werkzeug-cookie"}}},"before":[],"forgotten":0,"history":[{"action":"bind","at":1796059553340,"by":"first administrator","to":1}],"is_pinned":false,"lifted_at":0,"newest":1,"retired":{},"since":1796059553340,"withdrawn":[]}}',1796059553340,1796059553340,NULL);
INSERT INTO entity VALUES(7,1,'group','errors',1,'{"paused":false,"policy":{},"rollout":{"active":{"by":"first administrator","made_at":1796059553359,"number":1,"plugins":[{"digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","plugin":"expected-status@0.1.0","role":"judge"},{"digest":"2f1387dba3d832caa8908beb66746fbbf2753df87ed6abe688f24963dec9764a","plugin":"backoff@0.1.0","role":"retry"}],"policy":{}},"before":[],"forgotten":0,"history":[{"action":"bind","at":1796059553359,"by":"first administrator","to":1}],"is_pinned":false,"lifted_at":0,"newest":1,"retired":{},"since":1796059553359,"withdrawn":[]}}',1796059553359,1796059553359,NULL);
INSERT INTO entity VALUES(8,1,'group','q',1,'{"paused":false,"policy":{"dead_letters":"errors","retry":{"config":{"base":"1s","kind":"fixed","max_attempts":1},"plugin":"backoff"}},"rollout":{"active":{"by":"first administrator","made_at":1796059553380,"number":1,"plugins":[{"digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","plugin":"expected-status@0.1.0","role":"judge"},{"digest":"2f1387dba3d832caa8908beb66746fbbf2753df87ed6abe688f24963dec9764a","plugin":"backoff@0.1.0","role":"retry"}],"policy":{"retry":{"config":{"base":"1s","kind":"fixed","max_attempts":1},"plugin":"backoff"}}},"before":[],"forgotten":0,"history":[{"action":"bind","at":1796059553380,"by":"first administrator","to":1}],"is_pinned":false,"lifted_at":0,"newest":1,"retired":{},"since":1796059553380,"withdrawn":[]}}',1796059553380,1796059553380,NULL);
INSERT INTO entity VALUES(9,1,'schedule','s',1,'{"anchor":1796059553393,"paused":false,"since":1796059553393,"spec":{"catch_up":{"nanos":0,"secs":60},"catch_up_all":false,"cron":"0 3 * * *","end":null,"group":"signed","jitter":{"nanos":0,"secs":0},"job":"{\"url\": \"http://127.0.0.1:18555/200\", \"payload\": {\"a\": 1}}","max_runs":null,"overlap":"skip","start":null,"time_zone":"Europe/Vienna"}}',1796059553394,1796059553394,NULL);
CREATE TABLE generation (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO generation VALUES(1,9);
CREATE TABLE component (
    digest TEXT PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT;
CREATE TABLE job (
    id               BLOB    PRIMARY KEY,
    tenant           INTEGER NOT NULL,
    grp              INTEGER NOT NULL REFERENCES entity (id),
    name             TEXT,
    state            TEXT    NOT NULL,
    run_at           INTEGER NOT NULL,
    lease_until      INTEGER,
    token            INTEGER NOT NULL DEFAULT 0,
    lost_leases      INTEGER NOT NULL DEFAULT 0,
    attempt_count    INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    deadline         INTEGER,
    seed             INTEGER NOT NULL,
    last_status      INTEGER,
    last_error       TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0, lane         INTEGER NOT NULL DEFAULT 0, order_key    TEXT, blocked      INTEGER NOT NULL DEFAULT 0, max_delay    INTEGER, schedule     INTEGER, attempt_base INTEGER NOT NULL DEFAULT 0, revision     INTEGER NOT NULL DEFAULT 0, expires_at INTEGER GENERATED ALWAYS AS (
    CASE WHEN max_delay IS NULL THEN deadline
         WHEN deadline IS NULL THEN run_at + max_delay
         ELSE min(deadline, run_at + max_delay) END) VIRTUAL,
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('scheduled', 'running')) = (finished_at IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO job VALUES(X'01a22d7dde7e70008001aa45656ece37',1,6,'s','succeeded',1796059553406,NULL,1,0,1,1796059553406,1796059553416,NULL,4289912625,200,NULL,0,125,NULL,0,NULL,9,0,0);
INSERT INTO job VALUES(X'01a22d7dde907000800023967048d442',1,6,'succeeded','succeeded',1796059553424,NULL,1,0,1,1796059553424,1796059553443,NULL,1750643696,200,NULL,0,125,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7dde9e70008000099507accf16',1,6,'retried','scheduled',1796060358101,NULL,1,0,1,1796059553438,NULL,NULL,3881173885,500,NULL,0,125,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddeac7000800030093b8e8ba2',1,8,'dead','dead',1796059553452,NULL,1,0,1,1796059553452,1796059553457,NULL,3055014147,500,NULL,0,165,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddeb1700080003008179e317d',1,7,'dead','scheduled',1796059553457,NULL,0,0,0,1796059553457,NULL,NULL,325715684,NULL,NULL,0,155,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddeb6700080000688168c5cbe',1,6,'waiting','scheduled',2082758400000,NULL,0,0,0,1796059553462,NULL,NULL,2795270170,NULL,NULL,0,122,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddec1700080005a4efab518ba',1,6,'first','scheduled',2082758400000,NULL,0,0,0,1796059553473,NULL,NULL,2190308094,NULL,NULL,0,125,'o',0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddf6170008000d9c11715e2b1',1,6,'second','scheduled',2082758400000,NULL,0,0,0,1796059553633,NULL,NULL,1242004127,NULL,NULL,0,125,'o',1,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddf7f70008000364f9d17b0b2',1,6,'cancelled','cancelled',2082758400000,NULL,0,0,0,1796059553663,1796059553830,NULL,2738063396,NULL,NULL,0,125,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddfab7000800073306d4904ed',1,6,'once','scheduled',2082758400000,NULL,0,0,0,1796059553707,NULL,NULL,3418852581,NULL,NULL,0,125,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddfd9700080007544f5b502c2',1,6,'followed','scheduled',2082758400000,NULL,0,0,0,1796059553752,NULL,NULL,3042661302,NULL,NULL,0,125,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7ddffb70008000feee66d9b585',1,8,'leased','running',1796059553787,1796102753862,1,0,0,1796059553787,NULL,NULL,753655524,NULL,NULL,0,175,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7de01270008000d1a4b34ae1eb',1,8,'available','scheduled',1796059553810,NULL,0,0,0,1796059553810,NULL,NULL,3153349340,NULL,NULL,0,175,NULL,0,NULL,NULL,0,0);
INSERT INTO job VALUES(X'01a22d7de0c170008000b27e3f90c148',1,6,'running','running',1796059553985,1796059583991,1,0,0,1796059553985,NULL,NULL,697060546,NULL,NULL,0,125,NULL,0,NULL,NULL,0,0);
CREATE TABLE job_spec (
    job  BLOB PRIMARY KEY NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    spec TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
INSERT INTO job_spec VALUES(X'01a22d7dde7e70008001aa45656ece37','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"],["Carillon-Schedule","s"],["Carillon-Tick","2026-11-30T17:25:53.406Z"]]},"metadata":{"schedule":{"name":"s","tick":"2026-11-30T17:25:53.406Z"}},"is_json":true}',X'7b2261223a20317d');
INSERT INTO job_spec VALUES(X'01a22d7dde907000800023967048d442','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b2261223a20312e31307d');
INSERT INTO job_spec VALUES(X'01a22d7dde9e70008000099507accf16','{"target":{"method":"POST","url":"http://127.0.0.1:18555/500","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b2278223a20317d');
INSERT INTO job_spec VALUES(X'01a22d7ddeac7000800030093b8e8ba2','{"target":{"method":"POST","url":"http://127.0.0.1:18555/500","headers":[["Content-Type","application/json"]]},"is_json":true}',X'32');
INSERT INTO job_spec VALUES(X'01a22d7ddeb1700080003008179e317d','{"metadata":{"carillon":{"error":"All 1 attempts that `max_attempts` allows have been made.","state":"dead","url":"http://127.0.0.1:18555/500"}},"is_json":true,"parent":"01a22d7d-deac-7000-8000-30093b8e8ba2"}',X'32');
INSERT INTO job_spec VALUES(X'01a22d7ddeb6700080000688168c5cbe','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"metadata":{"plan":"free"},"is_json":true}',X'7b226e223a2031323334353637383930313233343536373839307d');
INSERT INTO job_spec VALUES(X'01a22d7ddec1700080005a4efab518ba','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b7d');
INSERT INTO job_spec VALUES(X'01a22d7ddf6170008000d9c11715e2b1','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b7d');
INSERT INTO job_spec VALUES(X'01a22d7ddf7f70008000364f9d17b0b2','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b7d');
INSERT INTO job_spec VALUES(X'01a22d7ddfab7000800073306d4904ed','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b7d');
INSERT INTO job_spec VALUES(X'01a22d7ddfd9700080007544f5b502c2','{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[["Content-Type","application/json"]]},"on_success":{"group":6,"delay":{"secs":0,"nanos":0},"priority":4,"spec":{"target":{"method":"POST","url":"http://127.0.0.1:18555/200","headers":[]}},"body":""},"is_json":true}',X'7b7d');
INSERT INTO job_spec VALUES(X'01a22d7ddffb70008000feee66d9b585','{"is_json":true}',X'2270756c6c206d6522');
INSERT INTO job_spec VALUES(X'01a22d7de01270008000d1a4b34ae1eb','{"is_json":true}',X'2270756c6c206d6520746f6f22');
INSERT INTO job_spec VALUES(X'01a22d7de0c170008000b27e3f90c148','{"target":{"method":"POST","url":"http://127.0.0.1:18555/hold/200","headers":[["Content-Type","application/json"]]},"is_json":true}',X'7b7d');
CREATE TABLE attempt (
    job           BLOB    NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number        INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    finished_at   INTEGER NOT NULL,
    outcome       TEXT    NOT NULL,
    status        INTEGER,
    detail        TEXT    NOT NULL,
    response_body BLOB    NOT NULL,
    PRIMARY KEY (job, number)
) STRICT;
INSERT INTO attempt VALUES(X'01a22d7dde7e70008001aa45656ece37',1,1796059553412,1796059553416,'success',200,'{"spent":true,"request_digest":"4f81592fd1f2c6d3ad67f64bf1793b4aefcc3119184bc9b6fbed0ffcfde469d9","verdict":{"outcome":"success","reason":"The status is 200."},"decision":{"state":"succeeded","reason":"the answer was judged a success"},"plugins":[{"role":"sign","plugin":"werkzeug-cookie","digest":"0e7a53f2e1149b0894673a1f1f6dd3124941946e3d09ebc684c64af62f6b8d63","config_digest":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","micros":418,"fuel":10398},{"role":"judge","plugin":"expected-status","digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","config_digest":"1b9d3d02a7d8d38683ef304e62e99f5ceaa40e16bfd40c218b88a8c491d3609a","micros":336,"fuel":6211}],"timings":{"late":6000,"prepare":564,"exchange":1882,"decide":844},"response_headers":[["server","BaseHTTP/0.6 Python/3.11.7"],["date","Mon, 30 Nov 2026 17:25:53 GMT"]],"response_truncated":false,"seed":1470706230,"binding_version":1,"inputs":{"run_at":1796059553406,"answered_at":1796059553415,"truncated":false}}',X'73616964');
INSERT INTO attempt VALUES(X'01a22d7dde907000800023967048d442',1,1796059553432,1796059553443,'success',200,'{"spent":true,"request_digest":"8eacb8522a13d0b62a6856f513fc90fcf2baaffa7e7b12b30d86848a0e743963","verdict":{"outcome":"success","reason":"The status is 200."},"decision":{"state":"succeeded","reason":"the answer was judged a success"},"plugins":[{"role":"sign","plugin":"werkzeug-cookie","digest":"0e7a53f2e1149b0894673a1f1f6dd3124941946e3d09ebc684c64af62f6b8d63","config_digest":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","micros":2652,"fuel":12247},{"role":"judge","plugin":"expected-status","digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","config_digest":"1b9d3d02a7d8d38683ef304e62e99f5ceaa40e16bfd40c218b88a8c491d3609a","micros":271,"fuel":5563}],"timings":{"late":8000,"prepare":2850,"exchange":5562,"decide":2490},"response_headers":[["server","BaseHTTP/0.6 Python/3.11.7"],["date","Mon, 30 Nov 2026 17:25:53 GMT"]],"response_truncated":false,"seed":1475063088,"binding_version":1,"inputs":{"run_at":1796059553424,"answered_at":1796059553440,"truncated":false}}',X'73616964');
INSERT INTO attempt VALUES(X'01a22d7dde9e70008000099507accf16',1,1796059553442,1796059553449,'retryable',500,'{"spent":true,"request_digest":"888338a3dacc28ba2e3bdbf740c414d82a0c7d5def2a4923f2ff533a6f36586e","verdict":{"outcome":"retryable","reason":"The status is 500, expected was 2xx."},"decision":{"state":"scheduled","next_run_at":1796060358101,"reason":"the retry policy asked for another attempt"},"plugins":[{"role":"sign","plugin":"werkzeug-cookie","digest":"0e7a53f2e1149b0894673a1f1f6dd3124941946e3d09ebc684c64af62f6b8d63","config_digest":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","micros":195,"fuel":9003},{"role":"judge","plugin":"expected-status","digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","config_digest":"1b9d3d02a7d8d38683ef304e62e99f5ceaa40e16bfd40c218b88a8c491d3609a","micros":259,"fuel":6793},{"role":"retry","plugin":"backoff","digest":"2f1387dba3d832caa8908beb66746fbbf2753df87ed6abe688f24963dec9764a","config_digest":"20ebc1e354658ccb029e96be53193ed0ee82c33a45a0215d10a4d9f31e24f167","micros":75,"fuel":7773}],"timings":{"late":4000,"prepare":1190,"exchange":4453,"decide":469},"response_headers":[["server","BaseHTTP/0.6 Python/3.11.7"],["date","Mon, 30 Nov 2026 17:25:53 GMT"]],"response_truncated":false,"seed":3518441166,"binding_version":1,"inputs":{"run_at":1796059553438,"answered_at":1796059553448,"truncated":false}}',X'73616964');
INSERT INTO attempt VALUES(X'01a22d7ddeac7000800030093b8e8ba2',1,1796059553454,1796059553457,'retryable',500,'{"spent":true,"request_digest":"7660fbd6d28a7ad3110b570cdd3395e28d9e1ab3f676d6cc14870acb282d2f2a","verdict":{"outcome":"retryable","reason":"The status is 500, expected was 2xx."},"decision":{"state":"dead","reason":"All 1 attempts that `max_attempts` allows have been made."},"plugins":[{"role":"judge","plugin":"expected-status","digest":"304b2e9853606165f077b4d3d6240b468017c13a63dd657a5177d48d2ce4ee12","config_digest":"1b9d3d02a7d8d38683ef304e62e99f5ceaa40e16bfd40c218b88a8c491d3609a","micros":258,"fuel":6793},{"role":"retry","plugin":"backoff","digest":"2f1387dba3d832caa8908beb66746fbbf2753df87ed6abe688f24963dec9764a","config_digest":"7af454eb231e6a0eb7b7ce6821e82c73cdfeb04a97d69a38153750247b8a09c3","micros":81,"fuel":8277}],"timings":{"late":2000,"prepare":166,"exchange":1925,"decide":473},"response_headers":[["server","BaseHTTP/0.6 Python/3.11.7"],["date","Mon, 30 Nov 2026 17:25:53 GMT"]],"response_truncated":false,"seed":3285902283,"binding_version":1,"inputs":{"run_at":1796059553452,"answered_at":1796059553456,"truncated":false}}',X'73616964');
CREATE TABLE level (number INTEGER PRIMARY KEY) STRICT;
INSERT INTO level VALUES(0);
INSERT INTO level VALUES(1);
INSERT INTO level VALUES(2);
INSERT INTO level VALUES(3);
INSERT INTO level VALUES(4);
INSERT INTO level VALUES(5);
INSERT INTO level VALUES(6);
INSERT INTO level VALUES(7);
INSERT INTO level VALUES(8);
INSERT INTO level VALUES(9);
CREATE TABLE tick (
    schedule INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    job      BLOB,
    PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;
INSERT INTO tick VALUES(9,-1796059553406,X'01a22d7dde7e70008001aa45656ece37');
CREATE TABLE ticked (
    schedule INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,
    runs     INTEGER NOT NULL
) STRICT;
INSERT INTO ticked VALUES(9,-1796059553406,1);
CREATE TABLE recent (
    tenant     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    job        BLOB,
    doc        TEXT    NOT NULL,
    PRIMARY KEY (tenant, kind, key)
) STRICT;
INSERT INTO recent VALUES(1,'dedupe','6/d',1796059853707,X'01a22d7ddfab7000800073306d4904ed','{}');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('entity',9);
CREATE UNIQUE INDEX entity_name ON entity (tenant, kind, name) WHERE deleted_at IS NULL;
CREATE INDEX entity_deleted ON entity (id) WHERE deleted_at IS NOT NULL;
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_finished ON job (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_state ON job (grp, state, id);
CREATE INDEX job_name ON job (grp, name, id) WHERE name IS NOT NULL;
CREATE VIEW job_shown AS
    SELECT job.*, job_spec.spec, length(job_spec.body) AS body_len
    FROM job JOIN job_spec ON job_spec.job = job.id;
CREATE INDEX job_due ON job (lane, run_at, id) WHERE state = 'scheduled' AND blocked = 0;
CREATE INDEX job_order ON job (grp, order_key, blocked, id) WHERE order_key IS NOT NULL AND finished_at IS NULL;
CREATE INDEX job_expiry ON job (expires_at) WHERE state = 'scheduled' AND expires_at IS NOT NULL;
CREATE INDEX job_schedule ON job (schedule) WHERE schedule IS NOT NULL AND finished_at IS NULL;
CREATE INDEX recent_expiry ON recent (expires_at);
COMMIT;
