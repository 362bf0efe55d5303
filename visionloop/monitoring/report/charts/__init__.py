"""The report's charts: Altair describes them, Vega-Lite lays them out, the page holds static SVG."""
