// Command api answers questions about the stored events over HTTP.
package main

import (
	"database/sql"
	"net/http"
	"os"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/web"
	_ "modernc.org/sqlite"
)

type count struct {
	Route string `json:"route"`
	Type  string `json:"type"`
	N     int    `json:"events"`
}

func main() {
	db, err := sql.Open("sqlite", "file:"+os.Getenv("DATABASE")+"?_pragma=busy_timeout(10000)&_pragma=query_only(1)")
	if err != nil {
		panic(err) // only a driver that is not linked in gets here
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, db, `SELECT subject, type, count(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2`)
	})
	mux.HandleFunc("GET /repos/{name...}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, db, `SELECT subject, type, count(*) FROM events WHERE repo = ?1 GROUP BY 1, 2 ORDER BY 1, 2`, r.PathValue("name"))
	})
	hozo.Main(hozo.HTTP(mux))
}

func answer(w http.ResponseWriter, r *http.Request, db *sql.DB, query string, args ...any) {
	rows, err := db.QueryContext(r.Context(), query, args...)
	if err != nil {
		web.Fault(w, http.StatusServiceUnavailable, err)
		return
	}
	defer rows.Close()
	counts := []count{}
	for rows.Next() {
		var c count
		if err := rows.Scan(&c.Route, &c.Type, &c.N); err != nil {
			web.Fault(w, http.StatusInternalServerError, err)
			return
		}
		counts = append(counts, c)
	}
	if err := rows.Err(); err != nil {
		web.Fault(w, http.StatusInternalServerError, err)
		return
	}
	web.JSON(w, http.StatusOK, counts)
}
