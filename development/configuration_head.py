"""What docs/configuration.md says before its tables."""

from __future__ import annotations

from opskit.config import ENVIRONMENT_PREFIX

EXAMPLE = """\
[databases.shop]                        # "shop" is the name of the source
url = "postgresql://ops@db.example/shop"
# url_file = "/run/secrets/shop-url"    # instead of url: a file that holds it
exclude_tables = ["public.scratch_*"]   # pg_dump patterns: no table, no rows
exclude_table_data = ["public.cache"]   # the table, but not its rows

[stores.local]                          # every set goes to every store named
url = "file:///var/backups/opskit"      # the folder must exist

[stores.offsite]                        # credentials are not in this file
url = "s3://acme-backups/prod"
endpoint_url = "https://s3.example.net" # left out for AWS
object_lock_days = 0

[files.state]                           # a folder of state files
path = "/var/lib/app/state"
lock = "/var/lib/app/state.lock"        # the file that its service locks
retention = { keep_last = 10 }          # in place of [retention]

[retention]              # a set stays if any rule keeps it; one not named here is 0
keep_last = 7
keep_within = "30d"
keep_monthly = 12
min_keep = 2                            # never fewer good sets than this

[drill]                                 # restore uses jobs, timeout, work_dir too
work_dir = "/var/tmp"                   # room for the dump and for a whole copy
timeout = "2h"

[[drill.queries]]                       # your own check of the restored copy
name = "there are orders"
sql = "SELECT count(*) > 0 FROM public.orders"
expect = true
database = "shop"

[restore]                               # what is not set here is as in [drill]
allow = ["TRIGGER public.orders audit"] # restored without it, with a warning
"""

HEAD = f"""\
# Configuration

<!-- Written from the settings model: do not edit, see CONTRIBUTING.md. -->

opskit reads `opskit.toml` in the working directory, or the file that `--config` or
`OPSKIT_CONFIG` names. An unknown key, a wrong type or an impossible value is refused
with exit code 2 before anything is touched.

```toml
{EXAMPLE}```

## The environment

Every key can be set by an environment variable, which overrides the file. The tables
below give its name: `{ENVIRONMENT_PREFIX}`, section and key, joined by two underscores.

- `NAME` stands for the name of a database, a folder or a store, in capitals. A name
  with `-` gives a variable that most shells cannot set.
- A list is written as JSON: `OPSKIT_DATABASES__SHOP__EXCLUDE_TABLES='["public.x"]'`.
- A variable that begins with `{ENVIRONMENT_PREFIX}` and names no section is refused.
  `OPSKIT_CONFIG` and `OPSKIT_DEBUG` (set to anything, it shows the traceback of an
  unexpected error) are not keys.
- PostgreSQL's own variables (`PGPASSFILE`, `PGPASSWORD`, `PGSERVICEFILE` and so on)
  apply to whatever the URL leaves out; so do AWS's (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`
  and so on) for [the credentials of stores](stores.md#credentials), which have no key.

## How values are written

- A duration is a whole number and a unit, `s`, `m`, `h`, `d` or `w`: `"90s"`, `"26h"`.
- `state_dir` is relative to the folder of the configuration, other paths to the working
  directory: write those as absolute paths.
- A size is a whole number of bytes, or one with `k`, `m`, `g` or `t`: `"20m"` is
  20 MiB.
- The name of a database, a folder or a store is 1 to 63 lower-case letters, digits, `_`
  and `-`, and begins with a letter or a digit.
"""
