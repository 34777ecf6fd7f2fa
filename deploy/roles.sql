-- The three roles of Afterwrite and its database. `afterwrite up` runs this on its own PostgreSQL;
-- on a server of yours, run it once as a superuser and give each role a password afterwards:
--
--     psql -v ON_ERROR_STOP=1 -f deploy/roles.sql postgres
--     psql -c '\password afterwrite_owner' … '\password afterwrite_writer' … '\password afterwrite_frontend'
--
-- It may be run again: what is there is left as it is. Rights on tables are not given here; the
-- migrations give them. (Where the database is there already, skip step `database`.)

-- step: roles
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'afterwrite_owner') THEN
        CREATE ROLE afterwrite_owner LOGIN;      -- owns the tables; runs the migrations
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'afterwrite_writer') THEN
        CREATE ROLE afterwrite_writer LOGIN;     -- the only role that changes rows
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'afterwrite_frontend') THEN
        CREATE ROLE afterwrite_frontend LOGIN;   -- reads
    END IF;
END
$$;

-- step: database
CREATE DATABASE afterwrite OWNER afterwrite_owner ENCODING 'UTF8' TEMPLATE template0;

-- step: access
REVOKE ALL ON DATABASE afterwrite FROM PUBLIC;
GRANT CONNECT ON DATABASE afterwrite TO afterwrite_writer, afterwrite_frontend;
