"""Jobs of Treadle written by hand with other libraries, to be measured against."""
