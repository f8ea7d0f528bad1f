package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrationFiles embed.FS

// migrationTable is where goose notes which migrations have run.
const migrationTable = "schema_migrations"

// migrate brings the tables up to date. A database that a newer Postern has
// changed is refused: what its tables mean now is not known here.
func (d *database) migrate(ctx context.Context) error {
	provider, err := d.migrations(goose.DialectSQLite3)
	if err != nil {
		return err
	}
	have, know, err := provider.GetVersions(ctx)
	if err != nil {
		return d.explain("migrate", err)
	}
	if have > know {
		return fmt.Errorf("open %s: written by a newer Postern (tables of version %d, this program knows %d): use that version, or another state folder", d.path, have, know)
	}
	if have == know {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return d.explain("migrate", err)
	}
	return nil
}

// migrations returns goose's view of the database.
func (d *database) migrations(dialect goose.Dialect) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, d.kind.migrations)
	if err != nil {
		return nil, fmt.Errorf("migrate %s: %w", d.path, err)
	}
	provider, err := goose.NewProvider(dialect, d.w, files,
		goose.WithTableName(migrationTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("migrate %s: %w", d.path, err)
	}
	return provider, nil
}
