package broker

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// promise is DIR/limit.json: what the store was once promised. Without it a broker that is started while others have
// filled the disk would measure a small limit and keep it when there is space again.
type promise struct {
	Asked int64 `json:"asked_bytes"`
	Limit int64 `json:"limit_bytes"`
}

// storeLimit is the most bytes that the store may take: what there is room for now, or what was promised before for the
// same wish. Whether there is space at the moment is the intake's affair.
func storeLimit(dir, store string, asked int64) (int64, error) {
	space, err := SpaceOf(store)
	if err != nil {
		return 0, err
	}
	used, err := usedBytes(store)
	if err != nil {
		return 0, err
	}
	path := filepath.Join(dir, "limit.json")
	limit := space.limit(asked, used)
	var before promise
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &before) == nil &&
		before.Asked == asked && before.Limit >= limit && before.Limit <= space.TotalBytes {
		return before.Limit, nil
	}
	data, err := json.Marshal(promise{asked, limit})
	if err != nil {
		return 0, err
	}
	_ = os.WriteFile(path, data, 0o600) // on a full disk the next start measures once more
	return limit, nil
}
