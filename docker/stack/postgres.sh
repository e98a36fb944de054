#!/bin/sh
# Starts PostgreSQL, and makes its database on the first start. POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE and
# PGDATA mean what they do in the official image, but the user is no superuser, and there is no way without a password.
set -eu
umask 077

if [ ! -e "$PGDATA/PG_VERSION" ]; then
    if [ ! -s "${POSTGRES_PASSWORD_FILE:-}" ]; then
        echo "postgres: POSTGRES_PASSWORD_FILE (${POSTGRES_PASSWORD_FILE:-not set}) is no file with a password." >&2
        exit 1
    fi
    new="$PGDATA.new" # made beside its name: a start that was killed leaves no half database
    rm -rf "$new"
    initdb --pgdata "$new" --username postgres --encoding UTF8 --locale C.UTF-8 --auth-local peer \
        --auth-host scram-sha-256 --no-instructions >/dev/null
    pg_ctl --pgdata "$new" --options "-c listen_addresses=''" --silent --wait start >/dev/null
    # psql reads the password itself: it stands on no command line.
    psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --set user="$POSTGRES_USER" --set db="$POSTGRES_DB" <<'SQL'
\set password `cat "$POSTGRES_PASSWORD_FILE"`
CREATE ROLE :"user" LOGIN PASSWORD :'password';
CREATE DATABASE :"db" OWNER :"user";
SQL
    pg_ctl --pgdata "$new" --mode fast --silent --wait stop >/dev/null
    echo "listen_addresses = '*'" >>"$new/postgresql.conf"
    echo "host \"$POSTGRES_DB\" \"$POSTGRES_USER\" samenet scram-sha-256" >>"$new/pg_hba.conf"
    mv "$new" "$PGDATA"
fi
exec postgres -D "$PGDATA"
